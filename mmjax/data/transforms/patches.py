"""Pictures of any shape as bags of patches, none of them padding to a square.

Source: NaFlex (Tschannen et al. 2025, arXiv:2502.14786, 2.4.2), after
NaViT (Dehghani et al. 2023, arXiv:2307.06304).
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data.transforms.image import ImageTransform, draw_box


def fit_grid(
  height: int,
  width: int,
  *,
  patch_size: int,
  max_patches: int,
  upscale: bool = False,
) -> tuple[int, int]:
  """Rows and columns of patches that a picture is resized to.

  The largest scale at which patches that cover the picture are no more than
  `max_patches`; sides are then stretched to whole patches, by less than one.
  Unless `upscale`, neither side grows, but to one patch where it is less.

  Raises:
    ValueError: the picture has no pixels.
  """
  if height < 1 or width < 1:
    raise ValueError(f"{width}x{height} pixels: nothing to cut into patches")
  largest = max_patches, max_patches
  if not upscale:
    largest = max(1, height // patch_size), max(1, width // patch_size)
    if largest[0] * largest[1] <= max_patches:
      return largest
  # Rows and the columns that they leave: one of the two bounds the scale.
  rows = np.arange(1, max_patches + 1)
  columns = max_patches // rows
  found = int(np.argmax(np.minimum(rows / height, columns / width)))
  r, c = int(rows[found]), int(columns[found])
  # In integers: a patch too many would not fit the batch.
  if r * width <= c * height:
    c = -(-r * width // height)  # Rounded up.
  else:
    r = -(-c * height // width)
  return min(r, largest[0]), min(c, largest[1])


def cut(
  pixels: UInt8[np.ndarray, "h w c"], patch_size: int
) -> UInt8[np.ndarray, "n q"]:
  """Flattened patches, row by row, as `models.encoders.vit.patchify`."""
  rows, columns = (side // patch_size for side in pixels.shape[:2])
  x = pixels.reshape(rows, patch_size, columns, patch_size, -1)
  return x.transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)


def padding_share(
  sizes: Iterable[tuple[int, int]],
  *,
  patch_size: int,
  max_patches: int,
  upscale: bool = False,
) -> float:
  """Share of a batch's tokens that are padding, for pictures of such sizes.

  Args:
    sizes: height and width of each picture, pixels.
    patch_size: see `PatchTransform`, as the others.
    max_patches: tokens of an example.
    upscale: whether small pictures grow.
  """
  grids = [
    fit_grid(
      height,
      width,
      patch_size=patch_size,
      max_patches=max_patches,
      upscale=upscale,
    )
    for height, width in sizes
  ]
  used = sum(rows * columns for rows, columns in grids)
  return 1 - used / (len(grids) * max_patches)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PatchTransform:
  """Adds `image`, a bag of patches, with `image_mask` and `image_coordinates`.

  Pictures keep their shape: they are scaled until their patches are at most
  `max_patches`, cut, and filled up with patches that don't count. In training
  a random part, whose ratio of width to height is that of the picture times
  one from `crop_ratio`; else all of it.
  """

  patch_size: int = 8  # Pixels.
  max_patches: int = 256
  upscale: bool = False  # Pictures of fewer patches grow.
  # What else happens to the picture; its `size` means nothing here.
  image: ImageTransform = dataclasses.field(default_factory=ImageTransform)

  def __post_init__(self):
    for name in ("patch_size", "max_patches"):
      if getattr(self, name) < 1:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected at least 1."
        )

  @property
  def field(self) -> str:
    """Field of the source."""
    return self.image.field

  def specs(self) -> dict[str, FieldSpec]:
    n = self.max_patches
    return {
      "image": FieldSpec(
        (n, self.patch_size**2 * 3), "uint8", "n q", "patches, row by row"
      ),
      "image_mask": FieldSpec((n,), "bool", "n", "True = not padding"),
      "image_coordinates": FieldSpec((n, 2), "int32", "n c", "row, column"),
    }

  def facts(self) -> dict[str, Any]:
    """What the encoder has to agree with."""
    return {"image_patches": (self.patch_size, self.max_patches)}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes, as `ImageTransform`."""
    return self.image.prepare(example)

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    pixels = self.prepare(example)[self.image.field]
    height, width = pixels.shape[:2]
    box = None
    if train:
      # Of a square: so the ratio is relative to the picture's own.
      left, top, right, bottom = draw_box(
        rng, 1, 1, self.image.crop_scale, self.image.crop_ratio
      )
      box = (left * width, top * height, right * width, bottom * height)
      height = max(1, round((bottom - top) * height))
      width = max(1, round((right - left) * width))
    rows, columns = fit_grid(
      height,
      width,
      patch_size=self.patch_size,
      max_patches=self.max_patches,
      upscale=self.upscale,
    )
    shape = (rows * self.patch_size, columns * self.patch_size)
    pixels = self.image.render(pixels, shape, box, rng, train=train)
    if train:
      pixels = self.image.mirror(pixels, example, rng)
    n = rows * columns
    patches = np.zeros(
      (self.max_patches, self.patch_size**2 * pixels.shape[2]), np.uint8
    )
    patches[:n] = cut(pixels, self.patch_size)
    coordinates = np.zeros((self.max_patches, 2), np.int32)
    coordinates[:n] = np.indices((rows, columns)).reshape(2, -1).T
    return {
      **example,
      "image": patches,
      "image_mask": np.arange(self.max_patches) < n,
      "image_coordinates": coordinates,
    }
