"""Modalities that an example may lack."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core.batch import FieldSpec
from mmjax.data.transforms import Transform


@dataclass(frozen=True, kw_only=True)
class Optional:
  """Runs transforms on the examples that have a field, and says which have.

  Adds `<modality>_present`. Without the field (or with None, "" or b"" in it),
  what the transforms would add is zeros, which nothing reads.
  """

  modality: str
  field: str  # Of the source.
  transforms: tuple[Transform, ...]

  @property
  def stream(self) -> str:
    """Names its random draws: each modality has its own."""
    return f"{type(self).__qualname__}/{self.modality}"

  def specs(self) -> dict[str, FieldSpec]:
    specs = {
      f"{self.modality}_present": FieldSpec((), "bool", "", "False = lacks it")
    }
    for transform in self.transforms:
      specs.update(transform.specs())
    return specs

  def facts(self) -> dict[str, Any]:
    """What the transforms say about the model."""
    facts: dict[str, Any] = {}
    for transform in self.transforms:
      if hasattr(transform, "facts"):
        facts.update(transform.facts())
    return facts

  def prepare(self, example: Mapping[str, Any]) -> Mapping[str, Any]:
    if self._is_present(example):
      for transform in self.transforms:
        if hasattr(transform, "prepare"):
          example = transform.prepare(example)
    return example

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    present = self._is_present(example)
    if present:
      for transform in self.transforms:
        example = transform(example, rng, train=train)
      return {**example, f"{self.modality}_present": np.bool_(True)}
    nothing = {
      name: np.zeros(spec.shape, spec.dtype)
      for name, spec in self.specs().items()
    }
    return {**example, **nothing}

  def _is_present(self, example):
    value = example.get(self.field)
    return value is not None and not (
      isinstance(value, (str, bytes)) and not value
    )
