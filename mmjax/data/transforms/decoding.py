"""How a text is to be decoded: how much of it is given, which all at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec


@dataclass(frozen=True, kw_only=True)
class PrefixText:
  """Adds `text_prefix`: so many tokens at the start of `text` are given.

  bos is; of the others but eos a share, drawn evenly from 0 to `rate`.
  """

  rate: float = 0.5

  def __post_init__(self):
    if not 0 <= self.rate <= 1:
      raise errors.UserError(f"rate={self.rate}, expected [0, 1].")

  def specs(self) -> dict[str, FieldSpec]:
    return {"text_prefix": FieldSpec((), "int32", "", "tokens that are given")}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out losses have prefixes too.
    content = int(example["text_mask"].sum()) - 2  # Without bos and eos.
    most = int(self.rate * content)
    return {**example, "text_prefix": np.int32(1 + rng.integers(most + 1))}


@dataclass(frozen=True, kw_only=True)
class ParallelText:
  """Adds `text_parallel`: True for texts to be predicted all at once."""

  rate: float = 0.75  # Of texts; CapPa's (arXiv:2306.07915, 3).

  def __post_init__(self):
    if not 0 <= self.rate <= 1:
      raise errors.UserError(f"rate={self.rate}, expected [0, 1].")

  def specs(self) -> dict[str, FieldSpec]:
    return {
      "text_parallel": FieldSpec((), "bool", "", "True = predicted at once")
    }

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train
    return {**example, "text_parallel": np.bool_(rng.random() < self.rate)}
