"""Images: a ResNet's map of features, then a vision transformer."""

from collections.abc import Mapping
from typing import Any

from mmjax.core import errors
from mmjax.core import precision as precision_lib
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.encoders.vit import PatchStem, own_grid
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.resnet import ResNet

ROOT_WIDTH = 64  # Channels at a width factor of 1.


def hybrid(
  *,
  image_size: int,
  patch_size: int = 0,
  size: str | Mapping[str, Any] = "B",
  stages: tuple[int, ...] = (3, 4, 9),
  width_factor: float = 1.0,
  positions: str = "learned",
  pool: str = "mean",
  registers: int = 0,
  hidden: str = "replace",
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
  image_grid: tuple[int, int] | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A vision transformer over the features of a ResNet.

  R50+B/16 has stages (3, 4, 9): those of R50, its last moved into the one
  before (Dosovitskiy et al. 2021, 4.1). Steiner et al. 2021 (arXiv:2106.10270)
  have R26+S/32, (2, 2, 2, 2), and R50+L/32, (3, 4, 6, 3).

  Cells of the map see far beyond their patch. Where patches are hidden, all
  convolutions see zeros (after `pixel_mean`) in their place, and the features
  of their cells are then replaced or dropped: nothing leaks, but visible cells
  notice where their neighbours are hidden.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of what a token stands for, pixels; 0 = of one
      cell of the map. Larger ones join cells.
    size: of the transformer, see `variants.resolve`.
    stages: units of each stage; n stages give cells of 4 * 2^(n-1) pixels.
    width_factor: channels, by those of a ResNet-50.
    positions: "learned", "sincos", "rotary" (by row and column) or "none".
    pool: "cls", "mean" or "map".
    registers: learned tokens besides those of the map.
    hidden: what happens to hidden patches, "replace" or "drop".
    pixel_mean: mean of the pictures' channels, of pixels in 0..1.
    pixel_std: their standard deviation.
    image_grid: rows and columns of patches as the data's mask counts them;
      None = nothing is hidden.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: patches that do not tile the image or are not made of cells, or
      another grid than the data's.
  """
  resnet = ResNet(tuple(stages), round(width_factor * ROOT_WIDTH), precision)
  patch_size = patch_size or int(resnet.stride)
  if patch_size % resnet.stride:
    raise errors.UserError(
      f"{len(stages)} stages give cells of {resnet.stride} pixels, of which "
      f"patch_size={patch_size} is no multiple."
    )
  size = variants.resolve(size)
  return Encoder(
    PatchStem(
      patch_size,
      size.embed_dim,
      hidden,
      pixel_mean,
      pixel_std,
      positions=positions,
      grid=own_grid(image_size, patch_size, image_grid),
      backbone=resnet,
      precision=precision,
    ),
    size,
    pool,
    registers,
    rotary=positions == "rotary",
    options=stack_options(stack),
    precision=precision,
  )
