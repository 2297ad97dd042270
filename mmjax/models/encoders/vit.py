"""Images: patches, linearly embedded, with learned positions (ViT)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence, complement, membership
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.layers.convolution import ConvPatches
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import grid_coordinates, position_table
from mmjax.models.layers.projection import Projection

KINDS = ("patch", "conv")
HIDDEN = ("replace", "drop")


def patchify(image: Array, patch_size: int) -> Array:
  """Cuts images into flattened patches, row by row.

  `b h w c` -> `b (h/p w/p) (p p c)`.

  Raises:
    ValueError: the patches do not tile the image.
  """
  b, h, w, c = image.shape
  if h % patch_size or w % patch_size:
    raise errors.UserError(
      f"An image of {h}x{w} pixels does not split into patches of "
      f"{patch_size}x{patch_size}."
    )
  rows, columns = h // patch_size, w // patch_size
  x = image.reshape(b, rows, patch_size, columns, patch_size, c)
  x = x.transpose(0, 1, 3, 2, 4, 5)  # b rows columns p p c
  return x.reshape(b, rows * columns, patch_size * patch_size * c)


def unpatchify(
  patches: Float[Array, "b n q"], grid: tuple[int, int], patch_size: int
) -> Float[Array, "b h w c"]:
  """Inverse of `patchify` for a grid of (rows, columns)."""
  b, _, q = patches.shape
  channels = q // patch_size**2
  x = patches.reshape(b, *grid, patch_size, patch_size, channels)
  x = x.transpose(0, 1, 3, 2, 4, 5)  # b rows p columns p c
  return x.reshape(b, grid[0] * patch_size, grid[1] * patch_size, channels)


def normalize(
  pixels: UInt8[Array, "*b c"],
  mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  std: tuple[float, ...] = (0.5, 0.5, 0.5),
) -> Float[Array, "*b c"]:
  """Maps 0..255 to (pixel / 255 - mean) / std by channel; default -1..1.

  On the device: the host ships a quarter of the bytes.
  """
  lead = tuple(range(pixels.ndim - 1))
  scale = jnp.expand_dims(1.0 / (255.0 * jnp.asarray(std)), lead)
  shift = jnp.expand_dims(jnp.asarray(mean) / jnp.asarray(std), lead)
  return pixels.astype(jnp.float32) * scale - shift


class PatchStem(nn.Module):
  """Embeds the patches of an image.

  Source: Dosovitskiy et al. 2021, eq. 1. Hidden patches are replaced by a
  learned token (BEiT, Bao et al. 2022), or dropped, which saves their share
  of the encoder's work (MAE, He et al. 2022). Convolutions, if any, see zeros
  in place of hidden pixels, so that nothing leaks over the patches' edges.

  Raises:
    UserError: unknown kind of stem or way to hide, or patches that do not
      tile the image.
  """

  patch_size: int  # Pixels.
  embed_dim: int
  hidden: str = "replace"  # "replace" or "drop".
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # Of pixels in 0..1.
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
  kind: str = "patch"  # "patch", one linear map; "conv", `ConvPatches` first.
  positions: str = "learned"  # See `layers.positions.KINDS`.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    inputs: UInt8[Array, "b h w c"],
    *,
    mask: Bool[Array, "b n"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    train: bool = False,
  ) -> Sequence:
    del train
    if self.hidden not in HIDDEN:
      raise errors.unknown("way to hide patches", self.hidden, HIDDEN)
    patches = self._features(inputs, hidden)  # b n q
    b, n, _ = patches.shape
    embed = Projection(
      (self.embed_dim,),
      (axes.PATCH, axes.EMBED),
      precision=self.precision,
      name="patches",
    )
    grid = tuple(side // self.patch_size for side in inputs.shape[1:3])
    table = position_table(self.positions, grid, self.embed_dim)
    coordinates = jnp.asarray(grid_coordinates(grid))[None]  # 1 n 2
    mask = jnp.ones((b, n), bool) if mask is None else mask
    visible = None
    if hidden is not None and self.hidden == "drop":
      visible = complement(hidden, n)  # b n-k
      patches = jnp.take_along_axis(patches, visible[:, :, None], axis=1)
      mask = jnp.take_along_axis(mask, visible, axis=1)
      coordinates = jnp.take(coordinates[0], visible, axis=0)  # b n-k 2
    x = embed(patches)
    # Created whether or not this call hides anything: one parameter tree.
    if self.hidden == "replace":
      token = self.param(
        "mask_token",
        nn.with_logical_partitioning(
          nn.initializers.normal(0.02), (axes.EMBED,)
        ),
        (self.embed_dim,),
        jnp.float32,
      )
      if hidden is not None:
        is_hidden = membership(hidden, n)[:, :, None]  # b n 1
        x = jnp.where(is_hidden, token.astype(x.dtype), x)
    if table is not None:
      table = (
        table[None] if visible is None else jnp.take(table, visible, axis=0)
      )
      x = x + table.astype(x.dtype)
    return Sequence(x, mask, visible, coordinates, num_content=n)

  def _features(self, inputs, hidden):
    """What the linear map of each patch gets."""
    if self.kind not in KINDS:
      raise errors.unknown("kind of stem", self.kind, KINDS)
    pixels = normalize(inputs, self.pixel_mean, self.pixel_std)
    patches = patchify(pixels, self.patch_size)  # b n (p p c)
    if self.kind == "patch":
      return patches
    if hidden is not None:
      is_hidden = membership(hidden, patches.shape[1])[:, :, None]  # b n 1
      patches = jnp.where(is_hidden, 0.0, patches)
    grid = tuple(side // self.patch_size for side in inputs.shape[1:3])
    return ConvPatches(
      self.patch_size, self.embed_dim, self.precision, name="conv"
    )(unpatchify(patches, grid, self.patch_size))


def vit(
  *,
  image_size: int,
  patch_size: int,
  size: str | Mapping[str, Any] = "B",
  stem: str = "patch",
  positions: str = "learned",
  pool: str = "mean",
  registers: int = 0,
  hidden: str = "replace",
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A vision transformer.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of a patch, pixels.
    size: see `variants.resolve`.
    stem: "patch", a linear map of each; "conv", convolutions before it.
    positions: "learned", "sincos", "rotary" (by row and column) or "none".
    pool: "cls", "mean" or "map".
    registers: learned tokens besides the patches (Darcet et al. 2024).
    hidden: what happens to hidden patches, "replace" or "drop".
    pixel_mean: mean of the pictures' channels, of pixels in 0..1. With the
      data's own, patches of a frequent colour do not drown the others.
    pixel_std: their standard deviation.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: patches do not tile the image.
  """
  if image_size % patch_size:
    raise errors.UserError(
      f"image_size={image_size} is no multiple of patch_size={patch_size}."
    )
  size = variants.resolve(size)
  return Encoder(
    PatchStem(
      patch_size,
      size.embed_dim,
      hidden,
      pixel_mean,
      pixel_std,
      stem,
      positions,
      precision,
    ),
    size,
    pool,
    registers,
    rotary=positions == "rotary",
    options=stack_options(stack),
    precision=precision,
  )
