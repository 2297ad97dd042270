"""RandAugment: a few changes to a picture, drawn from a list."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mmjax.core import errors

MOST = 10.0  # The largest magnitude.
# At the largest magnitude, as in AutoAugment (Cubuk et al. 2019,
# arXiv:1805.09501, table 6).
MAX_SHEAR = 0.3
MAX_SHIFT = 150 / 331  # Share of the side.
MAX_DEGREES = 30.0
MAX_ENHANCED = 0.9  # A factor is 1 more or less this.
MIN_BITS = 4
GRAY = (128, 128, 128)  # What comes in from outside of the picture.

Change = Callable[[Image.Image, float], Image.Image]


def _affine(picture, matrix):
  return picture.transform(
    picture.size,
    Image.Transform.AFFINE,
    matrix,
    Image.Resampling.BILINEAR,
    fillcolor=GRAY,
  )


def _shear_x(picture, strength):
  return _affine(picture, (1.0, MAX_SHEAR * strength, 0.0, 0.0, 1.0, 0.0))


def _shear_y(picture, strength):
  return _affine(picture, (1.0, 0.0, 0.0, MAX_SHEAR * strength, 1.0, 0.0))


def _translate_x(picture, strength):
  shift = MAX_SHIFT * strength * picture.width
  return _affine(picture, (1.0, 0.0, shift, 0.0, 1.0, 0.0))


def _translate_y(picture, strength):
  shift = MAX_SHIFT * strength * picture.height
  return _affine(picture, (1.0, 0.0, 0.0, 0.0, 1.0, shift))


def _rotate(picture, strength):
  return picture.rotate(
    MAX_DEGREES * strength, Image.Resampling.BILINEAR, fillcolor=GRAY
  )


def _solarize(picture, strength):
  return ImageOps.solarize(picture, round(256 * (1 - abs(strength))))


def _posterize(picture, strength):
  return ImageOps.posterize(picture, 8 - round((8 - MIN_BITS) * abs(strength)))


def _enhance(enhancer) -> Change:
  def change(picture, strength):
    return enhancer(picture).enhance(1 + MAX_ENHANCED * strength)

  return change


# Each takes a picture and -1..1: the magnitude, and to which side.
CHANGES: Mapping[str, Change] = {
  "identity": lambda picture, strength: picture,
  "auto_contrast": lambda picture, strength: ImageOps.autocontrast(picture),
  "equalize": lambda picture, strength: ImageOps.equalize(picture),
  "rotate": _rotate,
  "solarize": _solarize,
  "color": _enhance(ImageEnhance.Color),
  "posterize": _posterize,
  "contrast": _enhance(ImageEnhance.Contrast),
  "brightness": _enhance(ImageEnhance.Brightness),
  "sharpness": _enhance(ImageEnhance.Sharpness),
  "shear_x": _shear_x,
  "shear_y": _shear_y,
  "translate_x": _translate_x,
  "translate_y": _translate_y,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
  """The `rand_augment` section of pictures and clips; off by default.

  Source: Cubuk et al. 2020 (arXiv:1909.13719), 3: of the 14 changes there,
  `num_ops` are drawn, each at one magnitude. Where texts name colours or
  places, `ops` should leave out what changes them.

  Raises:
    UserError: a number outside its domain, or an unknown change.
  """

  num_ops: int = 0  # Changes of a picture, one after the other; 0 = off.
  magnitude: float = 9.0  # 0..10.
  ops: tuple[str, ...] = ()  # Names of `CHANGES` to draw from; () = all.

  def __post_init__(self):
    if self.num_ops < 0:
      raise errors.UserError(f"num_ops={self.num_ops}, expected 0 or more.")
    if not 0 <= self.magnitude <= MOST:
      raise errors.UserError(
        f"magnitude={self.magnitude}, expected 0 to {MOST:g}."
      )
    for name in self.ops:
      if name not in CHANGES:
        raise errors.unknown("change of rand_augment", name, CHANGES)

  def draw(self, rng: np.random.Generator) -> list[tuple[str, float]]:
    """Which changes, and how strong; below 0 is to the other side."""
    names = self.ops or tuple(CHANGES)
    # One call: calls into numpy are what this costs.
    draws = rng.random(2 * self.num_ops).tolist()
    return [
      (
        names[int(place * len(names))],
        self.magnitude / MOST * (1 if side < 0.5 else -1),
      )
      for place, side in zip(draws[::2], draws[1::2], strict=True)
    ]

  def __call__(
    self, picture: Image.Image, drawn: Sequence[tuple[str, float]]
  ) -> Image.Image:
    """Makes the changes that were drawn, in order."""
    for name, strength in drawn:
      picture = CHANGES[name](picture, strength)
    return picture


def rand_augment(section: RandAugment | Mapping[str, Any]) -> RandAugment:
  """The section of a config as its dataclass.

  Raises:
    UserError: an unknown key or a wrong value.
  """
  if isinstance(section, RandAugment):
    return section
  known = [f.name for f in dataclasses.fields(RandAugment)]
  for name in section:
    if name not in known:
      raise errors.unknown("key of rand_augment", name, known)
  own = dict(section)
  own["ops"] = tuple(own.get("ops", ()))
  if isinstance(own.get("magnitude"), int):
    own["magnitude"] = float(own["magnitude"])
  return RandAugment(**own)
