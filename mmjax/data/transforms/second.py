"""A second look at a picture, for contrast between two views of one thing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core.batch import FieldSpec
from mmjax.data.transforms.image import ImageTransform


@dataclass(frozen=True, kw_only=True)
class SecondView(ImageTransform):
  """Adds `image_second`: cropped and coloured by draws of its own."""

  def specs(self) -> dict[str, FieldSpec]:
    return {"image_second": super().specs()["image"]}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    made = super().__call__(example, rng, train=train)
    return {**example, "image_second": made["image"]}
