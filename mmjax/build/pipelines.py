"""Makes a pipeline for each task; what their data say about the model."""

from collections.abc import Mapping
from typing import Any

import ml_collections as mlc

from mmjax.build import settings as settings_lib
from mmjax.build.plug_in import Section, plain
from mmjax.core import errors
from mmjax.data import mixture, pipeline


def make_pipelines(config: mlc.ConfigDict) -> dict[str, pipeline.Pipeline]:
  """One pipeline per task: `config.data` with the task's changes.

  Raises:
    UserError: no task, or a task without objectives.
  """
  if not config.tasks:
    raise errors.UserError("config.tasks is empty: nothing to train.")
  if config.mixture not in mixture.KINDS:
    raise errors.unknown("mixture", config.mixture, mixture.KINDS)
  pipelines = {}
  for name, task in config.tasks.items():
    if not task.objectives:
      raise errors.UserError(f"config.tasks.{name}.objectives is empty.")
    pipelines[name] = make_pipeline(config, task.data)
  return pipelines


def make_pipeline(
  config: mlc.ConfigDict, *changes: Section
) -> pipeline.Pipeline:
  """A pipeline of `config.data` with some keys changed."""
  return pipeline.build_pipeline(merged_data(config, *changes))


def merged_data(config: mlc.ConfigDict, *changes: Section) -> dict[str, Any]:
  """`config.data` with some keys changed."""
  merged = config.data.to_dict()
  for change in changes:
    merged = _merge(merged, plain(change))
  return merged


def _merge(
  base: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  merged = dict(base)
  for key, value in changes.items():
    if key not in base and base:
      raise errors.unknown("key of config.data", key, base)
    inner = base.get(key)
    nested = isinstance(value, Mapping) and isinstance(inner, Mapping)
    merged[key] = _merge(inner, value) if nested else value
  return merged


def cached_codebook_sizes(facts: Mapping[str, Any]) -> dict[str, int]:
  """Number of codes by modality, of the codes that come with the data."""
  end = "_codes_number"
  return {
    name.removesuffix(end): number
    for name, number in facts.items()
    if name.endswith(end)
  }


def class_facts(source: pipeline.Pipeline) -> dict[str, Any]:
  """What the data says about classes; nothing if it has no label."""
  names = tuple(source.class_names or ())
  return {"num_classes": len(names), "class_names": names} if names else {}


def common_facts(
  config: mlc.ConfigDict, pipelines: Mapping[str, pipeline.Pipeline]
) -> dict[str, Any]:
  """What the data of all tasks say about the one model that they share.

  Raises:
    UserError: two tasks disagree.
  """
  facts: dict[str, Any] = {}
  said_by: dict[str, str] = {}
  for task, source in pipelines.items():
    said = model_facts(config, source)
    if source.tokenizer is not None:
      said["text_tokenizer"] = source.tokenizer.id
    for name, value in said.items():
      if name == "max_tokens":  # A model takes shorter texts too.
        value = max(value, facts.get(name, 0))
      elif facts.get(name, value) != value:
        raise errors.UserError(
          f"The tasks share one model, but {name} is {facts[name]} in the "
          f"data of {said_by[name]!r} and {value} in that of {task!r}."
        )
      facts[name], said_by[name] = value, task
  return facts


def model_facts(
  config: mlc.ConfigDict, main: pipeline.Pipeline
) -> dict[str, Any]:
  """What the data says about the model."""
  facts: dict[str, Any] = {}
  if main.tokenizer is not None:
    facts["vocab_size"] = _vocab_size(config, main.tokenizer.vocab_size)
    facts["max_tokens"] = max(
      main.specs[name].shape[0]
      for name in ("text", "answer")
      if name in main.specs
    )
  if "image" in main.specs and len(main.specs["image"].shape) == 3:
    facts["image_size"] = main.specs["image"].shape[0]
  if "images" in main.specs:
    facts["image_size"] = main.specs["images"].shape[1]
  for transform in main.transforms:
    if hasattr(transform, "facts"):
      facts.update(transform.facts())
  if "video" in main.specs:
    facts["num_frames"], facts["video_size"] = main.specs["video"].shape[:2]
  return facts


def _vocab_size(config: mlc.ConfigDict, num_tokens: int) -> int:
  """Rows of the model's tables of tokens."""
  asked = settings_lib.settings(config, "model").vocab_size
  if asked and asked < num_tokens:
    raise errors.UserError(
      f"config.model.vocab_size={asked}, but the tokenizer has {num_tokens} "
      "tokens; set as many or more, or 0."
    )
  return asked or num_tokens
