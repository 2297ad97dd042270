"""Files and words of a user -> a batch, by the transforms of a run's data."""

import dataclasses
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.build.prompts import COMPANIONS
from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms import optional, text

FILES = ("audio", "image", "video")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inputs:
  """What a user gives: paths of files, and words; "" = nothing."""

  image: str = ""
  audio: str = ""
  video: str = ""
  prompt: str = ""

  @property
  def files(self) -> dict[str, str]:
    """The paths, by modality."""
    return {name: getattr(self, name) for name in FILES if getattr(self, name)}


def make_batch(
  source: pipeline.Pipeline, modalities: Collection[str], inputs: Inputs
) -> dict[str, np.ndarray]:
  """One example as in evaluation, a batch of one row.

  Args:
    source: its transforms make the fields.
    modalities: that the model reads; the prompt is its `text`.
    inputs: of these, and of no other.

  Raises:
    UserError: something is missing, not needed, too long or damaged.
  """
  lacking = {
    t.modality for t in source.transforms if isinstance(t, optional.Optional)
  }
  _check_given(set(modalities), lacking, inputs)
  batch: dict[str, np.ndarray] = {}
  for name in sorted(modalities):
    known = {name, *(name + companion for companion in COMPANIONS)}
    for transform in source.transforms:
      wanted = known & set(transform.specs())
      if wanted and name in transform.specs():
        made = _run(transform, name, inputs)
        batch |= {field: np.asarray(made[field])[None] for field in wanted}
    if name not in batch:
      raise errors.unknown("field of the run's data", name, source.specs)
  if "text" in batch and inputs.prompt:
    _check_length(source, inputs.prompt)
  return batch


def _check_given(
  modalities: set[str], lacking: set[str], inputs: Inputs
) -> None:
  for name in inputs.files:
    if name not in modalities:
      raise errors.UserError(
        f"--{name}={inputs.files[name]}: the model does not look at "
        f"{name!r}, it looks at {sorted(modalities) or 'its prompt alone'}."
      )
  for name in sorted(modalities - lacking):
    if name == "text" and not inputs.prompt.strip():
      raise errors.UserError(
        f"--prompt={inputs.prompt!r}: the model reads a text, such as a "
        "question; it must not be empty."
      )
    if name in FILES and name not in inputs.files:
      raise errors.UserError(
        f"--{name} is missing: the model looks at {sorted(modalities)}."
      )


def _run(transform: Any, name: str, inputs: Inputs) -> Mapping[str, Any]:
  example: dict[str, Any] = {}
  if name == "text":
    if inputs.prompt:
      example[field_of(transform)] = inputs.prompt
  elif name in inputs.files:
    example[field_of(transform)] = _read(name, inputs.files[name])
  try:
    return transform(example, np.random.default_rng(0), train=False)
  except errors.UserError:
    raise
  except (ValueError, OSError, LookupError) as e:
    raise errors.UserError(
      f"--{name}={inputs.files.get(name, inputs.prompt)}: {e}"
    ) from e


def field_of(transform: Any) -> str:
  """The field of the source that a transform reads."""
  if isinstance(transform, text.TextTransform) and not transform.field:
    return f"label_{transform.caption.languages[0]}"
  return transform.field


def _read(name: str, path: str) -> bytes:
  try:
    return Path(path).expanduser().read_bytes()
  except OSError as e:
    raise errors.UserError(f"--{name}={path}: {e.strerror or e}.") from e


def _check_length(source: pipeline.Pipeline, prompt: str) -> None:
  most, count = source.specs["text"].shape[0], None
  if source.tokenizer is not None:
    count = source.tokenizer.num_tokens(prompt)
  if count and count > most:
    raise errors.UserError(
      f"The prompt has {count} tokens, begin and end included, the model reads "
      f"{most}. Say it in fewer words."
    )
