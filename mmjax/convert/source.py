"""Opens released weights, and says of which family they are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.convert import FAMILIES, tensors
from mmjax.convert.family import Family, Source
from mmjax.core import errors

CONFIG = "config.json"
BESIDE = (
  "open_clip_config.json",
  "preprocessor_config.json",
  "sentence_bert_config.json",
  "tokenizer_config.json",
  "1_Pooling/config.json",
)


def open_source(path: Path) -> tuple[Source, tensors.Tensors]:
  """A folder of released weights, or a file, with what lies beside it.

  Raises:
    UserError: it is missing, damaged, or only unpickling would read it.
  """
  files = tensors.open_file(path)
  folder = path if path.is_dir() else path.parent
  config = {} if path.suffix == ".npz" else _json(folder / CONFIG)
  beside = {name: _json(folder / name) for name in BESIDE}
  return Source(config, files.specs, beside), files


def family_of(source: Source, name: str = "") -> Family:
  """The family of a source, by its config and by the names of its tensors.

  Args:
    source: what was opened.
    name: of the family, if it is known.

  Raises:
    UserError: an unknown name, or no family fits.
  """
  if name:
    if name not in FAMILIES:
      raise errors.unknown("family", name, FAMILIES)
    return FAMILIES[name]
  for family in FAMILIES.values():
    if family.fits(source):
      return family
  kind = source.config.get("model_type")
  said = f"model_type={kind!r}" if kind else "no model_type"
  raise errors.UserError(
    f"Weights of no known family: {CONFIG} has {said}"
    f"{errors.nearest(kind, FAMILIES) if kind else ''}, first tensors "
    f"{sorted(source.specs)[:4]}. Known: {sorted(FAMILIES)}."
  )


def _json(path: Path) -> Mapping[str, Any]:
  """The object in a file; empty if there is no such file."""
  if not path.is_file():
    return {}
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError as e:
    raise errors.UserError(f"{path} is not JSON: {e}.") from e
  if not isinstance(content, dict):
    raise errors.UserError(f"{path} holds no JSON object.")
  return content
