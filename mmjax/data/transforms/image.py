"""Pictures: decode, crop, resize, jitter colours, blur; hide patches."""

import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFilter, ImageOps

from mmjax.core import batch, errors
from mmjax.core.batch import FieldSpec
from mmjax.data import masks
from mmjax.data.transforms import bilinear, color, jpeg, sides
from mmjax.data.transforms.rand_augment import RandAugment, rand_augment

MAX_PIXELS = 64 * 1024 * 1024  # 192 MiB as RGB.
CROP_ATTEMPTS = 10


def decode(
  encoded: bytes, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "h w 3"]:
  """Decodes a picture to RGB; transparency is put on white.

  Of an animation, the first frame. Turned upright as its EXIF tag says. Of 16
  bits, the upper 8.

  Raises:
    ValueError: not a picture, damaged, or of more than `max_pixels`.
  """
  if (pixels := jpeg.decode(encoded, max_pixels)) is not None:
    return pixels
  try:
    with Image.open(io.BytesIO(encoded)) as image:
      # The size stands in the header: nothing is decoded yet.
      width, height = image.size
      if width * height > max_pixels:
        raise ValueError(
          f"{width}x{height} pixels, more than max_pixels={max_pixels}"
        )
      if image.info.get("exif"):
        ImageOps.exif_transpose(image, in_place=True)
      if image.mode.startswith("I;16"):  # Pillow would cut gray off at 255.
        gray = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, axis=2)
      if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return np.asarray(Image.alpha_composite(white, rgba).convert("RGB"))
      return np.asarray(image.convert("RGB"))
  except ValueError:
    raise
  except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
    raise ValueError(
      f"more than max_pixels={max_pixels}, or Pillow: {e}"
    ) from e
  # Decoders of damaged files raise nearly anything.
  except Exception as e:
    raise ValueError(f"not a picture that Pillow reads: {e}") from e


def _is_rgb(value: Any) -> bool:
  return (
    isinstance(value, np.ndarray)
    and value.dtype == np.uint8
    and value.ndim == 3
    and value.shape[2] == 3
  )


def _describe(value: Any) -> str:
  if isinstance(value, np.ndarray):
    return batch.describe(value)
  return type(value).__name__


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
  """Adds `image`: uint8, `size` x `size` x 3.

  In training a random part of the picture, else all of it, resized with
  antialiasing. Flipping is off by default: captions say left and right; where
  a text of the example does, it is not flipped.

  Source: the crop of Szegedy et al. 2015 (arXiv:1409.4842), section 6.
  """

  size: int = 64  # Pixels, both sides.
  # Share of the area; (1, 1) is all of the picture, whatever its shape.
  crop_scale: tuple[float, float] = (0.6, 1.0)
  crop_ratio: tuple[float, float] = (0.8, 1.25)  # Width by height.
  flip: bool = False
  # Beginnings of words that forbid a flip, in any text of the source.
  side_words: tuple[str, ...] = sides.WORDS
  # Brightness, contrast and saturation change by up to this share.
  color_jitter: float = 0.0
  hue_jitter: float = 0.0  # Hue turns by up to this share of the circle.
  # Gaussian blur of up to this standard deviation, pixels: what is learned
  # then rests on shapes more than on the strokes of one artist.
  blur: float = 0.0
  rand_augment: RandAugment | Mapping[str, Any] = RandAugment()
  # False resizes with OpenCV by bilinear interpolation alone, in an eighth of
  # the time: for parts that are up to about twice as large as `size`.
  antialias: bool = True
  field: str = "image"  # Field of the source: encoded bytes or uint8 h w 3.
  max_pixels: int = MAX_PIXELS

  def __post_init__(self):
    if self.size < 1:
      raise errors.UserError(f"size={self.size}, expected at least 1.")
    low, high = self.crop_scale
    if not 0 < low <= high <= 1:
      raise errors.UserError(
        f"crop_scale={self.crop_scale}, expected 0 < low <= high <= 1."
      )
    low, high = self.crop_ratio
    if not 0 < low <= high:
      raise errors.UserError(
        f"crop_ratio={self.crop_ratio}, expected 0 < low <= high."
      )
    for name in ("color_jitter", "hue_jitter"):
      if not 0 <= getattr(self, name) < 1:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected [0, 1)."
        )
    if self.blur < 0:
      raise errors.UserError(f"blur={self.blur}, expected at least 0.")
    # A section of a config; the class is frozen.
    made = rand_augment(self.rand_augment)
    object.__setattr__(self, "rand_augment", made)

  @property
  def crops(self) -> bool:
    """Whether training sees parts of pictures."""
    return tuple(self.crop_scale) != (1.0, 1.0)

  @property
  def fixed(self) -> bool:
    """Whether training sees each picture as evaluation does."""
    return not (self.crops or self.flip or self._changes_look)

  @property
  def _changes_look(self) -> bool:
    jitter = self.color_jitter or self.hue_jitter
    return bool(jitter or self.blur or self.rand_augment.num_ops)

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.size, self.size, 3)
    return {"image": FieldSpec(shape, "uint8", "h w c", "pixels, RGB")}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes.

    Raises:
      UserError: the source has no such field.
      ValueError: what it holds is not a picture.
    """
    if self.field not in example:
      raise errors.unknown("image field of the source", self.field, example)
    pixels = example[self.field]
    if isinstance(pixels, bytes):
      return {**example, self.field: decode(pixels, self.max_pixels)}
    if not _is_rgb(pixels):
      raise ValueError(
        f"field {self.field!r} holds {_describe(pixels)}, expected encoded "
        "bytes or uint8[h, w, 3]"
      )
    if not pixels.size:
      raise ValueError(
        f"field {self.field!r} holds {_describe(pixels)}, a picture of no "
        "pixels"
      )
    return dict(example)

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    pixels = self.prepare(example)[self.field]
    height, width = pixels.shape[:2]
    box = None
    if train and self.crops:
      box = self._draw_box(rng, width, height)
    shape = (self.size, self.size)
    made = self.render(pixels, shape, box, rng, train=train)
    if train:
      made = self.mirror(made, example, rng)
    return {**example, "image": made}

  def render(
    self,
    pixels: UInt8[np.ndarray, "h w 3"],
    shape: tuple[int, int],
    box: tuple[float, float, float, float] | None,
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> UInt8[np.ndarray, "y x 3"]:
    """Resizes the part `box` to `shape`; in training changes its look too."""
    if not train:
      same = box is None and pixels.shape[:2] == shape
      return pixels if same else np.asarray(self._resize(pixels, shape, box))
    if not (self.antialias or self._changes_look):
      return bilinear.resize(pixels, shape, box)
    picture = self._resize(pixels, shape, box)
    if self.rand_augment.num_ops:
      picture = self.rand_augment(picture, self.rand_augment.draw(rng))
    if self.color_jitter or self.hue_jitter:
      picture = color.jitter_colors(
        rng, picture, self.color_jitter, self.hue_jitter
      )
    if self.blur:
      radius = self.blur * float(rng.random())
      picture = picture.filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(picture)

  def mirror(
    self,
    pixels: UInt8[np.ndarray, "*f y x 3"],
    example: Mapping[str, Any],
    rng: np.random.Generator,
  ) -> UInt8[np.ndarray, "*f y x 3"]:
    """With `flip`, half of the pictures; see `side_words`."""
    if not self.flip or rng.random() >= 0.5:
      return pixels
    if sides.tells_sides(example, tuple(self.side_words)):
      return pixels
    return np.flip(pixels, axis=-2)

  def _resize(self, pixels, shape, box) -> Image.Image:
    if self.antialias:
      return resize(pixels, shape, box)
    return Image.fromarray(bilinear.resize(pixels, shape, box))

  def _draw_box(
    self, rng: np.random.Generator, width: int, height: int
  ) -> tuple[float, float, float, float]:
    return draw_box(rng, width, height, self.crop_scale, self.crop_ratio)


def draw_box(
  rng: np.random.Generator,
  width: int,
  height: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
) -> tuple[float, float, float, float]:
  """Draws a part of a picture: left, top, right, bottom.

  `scale` bounds its share of the area, `ratio` its width by its height.
  """
  # One draw for all attempts: calls into numpy are what this costs.
  x, y, *draws = rng.random(2 + 2 * CROP_ATTEMPTS).tolist()
  low, high = scale
  log_low, log_high = map(math.log, ratio)
  for u, v in zip(draws[::2], draws[1::2], strict=True):
    area = (low + u * (high - low)) * width * height
    drawn = math.exp(log_low + v * (log_high - log_low))
    w, h = math.sqrt(area * drawn), math.sqrt(area / drawn)
    if w <= width and h <= height:
      break
  else:  # No luck: the largest part in the middle with a legal ratio.
    drawn = min(max(width / height, ratio[0]), ratio[1])
    w, h = min(width, height * drawn), min(height, width / drawn)
    x = y = 0.5
  left, top = x * (width - w), y * (height - h)
  # Rounding must not push the far edges out of the picture.
  return left, top, min(left + w, width), min(top + h, height)


def resize(
  pixels: UInt8[np.ndarray, "h w 3"],
  size: int | tuple[int, int],
  box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
  """Scales the part `box` (left, top, right, bottom), with antialiasing.

  `size` is height and width, or both.
  """
  new = (size, size) if isinstance(size, int) else size
  height, width = pixels.shape[:2]
  # A third of the time of `Image.fromarray`.
  whole = Image.frombytes("RGB", (width, height), pixels.tobytes())
  return whole.resize(new[::-1], Image.Resampling.BILINEAR, box=box)


@dataclass(frozen=True, kw_only=True)
class MaskImage:
  """Adds `image_hidden`: the patches to hide, the same number each time."""

  grid: tuple[int, int] = (8, 8)  # Patches, rows by columns.
  rate: float = 0.5  # Share of the patches.
  strategy: str = "random"  # Or "blockwise".

  def __post_init__(self):
    if self.strategy not in masks.STRATEGIES:
      raise errors.unknown("mask strategy", self.strategy, masks.STRATEGIES)
    # Whether all may go, the encoder says.
    masks.check_count(self.grid, self.rate, self.count, least_kept=0)

  @property
  def count(self) -> int:
    return round(self.rate * self.grid[0] * self.grid[1])

  def specs(self) -> dict[str, FieldSpec]:
    doc = "indices of hidden patches, row-major, ascending"
    return {"image_hidden": FieldSpec((self.count,), "int32", "k", doc)}

  def facts(self) -> dict[str, Any]:
    """What the encoder has to agree with."""
    return {"image_grid": self.grid}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out losses hide patches too.
    draw = masks.STRATEGIES[self.strategy]
    return {**example, "image_hidden": draw(rng, self.grid, self.count)}
