"""Classes: names to indices."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec


@dataclass(frozen=True, kw_only=True)
class LabelTransform:
  """Adds `label`: the index of a field's value in `names`."""

  names: tuple[str, ...]  # Of the classes, in the order of their indices.
  field: str = "group"  # Field of the source: a class name, or its index.

  def __post_init__(self):
    if len(set(self.names)) != len(self.names) or not self.names:
      raise errors.UserError(
        f"names={self.names}, expected distinct names of at least one class."
      )

  @functools.cached_property
  def _index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.names)}

  def specs(self) -> dict[str, FieldSpec]:
    return {"label": FieldSpec((), "int32", "", "class index")}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del rng, train
    if self.field not in example:
      raise errors.unknown("label field of the source", self.field, example)
    return {**example, "label": np.int32(self._find(example[self.field]))}

  def _find(self, value: Any) -> int:
    if isinstance(value, (int, np.integer)):
      if not 0 <= value < len(self.names):
        raise errors.UserError(
          f"Class {value} of field {self.field!r} is not one of "
          f"{len(self.names)} classes."
        )
      return int(value)
    if value not in self._index:
      raise errors.unknown(f"class of {self.field!r}", value, self.names)
    return self._index[value]
