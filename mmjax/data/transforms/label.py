"""Classes: names to indices."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec

SEPARATOR = "|"  # Of several names in one text, as in `tags_en`.


@dataclass(frozen=True, kw_only=True)
class LabelTransform:
  """Adds `label`: the index of a field's value in `names`.

  With `multi_label`, the field holds any number of classes (names in one text
  with "|" between them, or a list), and `label` is 1 at each of them, else 0.
  """

  names: tuple[str, ...]  # Of the classes, in the order of their indices.
  field: str = "group"  # Field of the source: a class name, or its index.
  multi_label: bool = False
  ignore_others: bool = False  # Of `multi_label`: skip what `names` lacks.

  def __post_init__(self):
    if len(set(self.names)) != len(self.names) or not self.names:
      raise errors.UserError(
        f"names={self.names}, expected distinct names of at least one class."
      )

  @functools.cached_property
  def _index(self) -> dict[str, int]:
    return {name: i for i, name in enumerate(self.names)}

  def specs(self) -> dict[str, FieldSpec]:
    if self.multi_label:
      shape = (len(self.names),)
      return {"label": FieldSpec(shape, "float32", "v", "1 = has the class")}
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
    value = example[self.field]
    if self.multi_label:
      return {**example, "label": self._several(value)}
    return {**example, "label": np.int32(self._find(value))}

  def _several(self, value: Any) -> np.ndarray:
    if isinstance(value, str):
      value = [name for name in value.split(SEPARATOR) if name]
    label = np.zeros(len(self.names), np.float32)
    for item in value:
      if not (self.ignore_others and isinstance(item, str)) or (
        item in self._index
      ):
        label[self._find(item)] = 1.0
    return label

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
