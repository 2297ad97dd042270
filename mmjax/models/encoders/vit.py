"""Images: patches, linearly embedded, with learned positions (ViT)."""

import math
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
from mmjax.models.layers import hidden as hiding
from mmjax.models.layers.convolution import ConvPatches
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.places import positions_at
from mmjax.models.layers.positions import grid_coordinates, position_table
from mmjax.models.layers.projection import Projection

KINDS = ("patch", "conv")


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

  Pictures of any shape come as bags of patches that the data have cut, with
  the (row, column) of each (NaViT, Dehghani et al. 2023, arXiv:2307.06304; of
  one picture each, as in NaFlex). `layers.places` says where they are.

  Raises:
    UserError: unknown kind of stem or way to hide, patches that do not tile
      the image, or inputs that the model has no positions or no map for.
  """

  patch_size: int  # Pixels.
  embed_dim: int
  hidden: str = "replace"  # "replace" or "drop".
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # Of pixels in 0..1.
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
  kind: str = "patch"  # "patch", one linear map; "conv", `ConvPatches` first.
  positions: str = "learned"  # See `layers.positions.KINDS`.
  # Rows and columns of patches that learned positions are of; None = those of
  # the input, which is a picture then.
  grid: tuple[int, int] | None = None
  # In place of `kind`: pixels -> map of features, of which a patch is a square.
  backbone: nn.Module | None = None
  patch_bias: bool = True  # Of the linear map.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    inputs: UInt8[Array, "b h w c"] | UInt8[Array, "b n q"],
    *,
    mask: Bool[Array, "b n"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    coordinates: Int[Array, "b n 2"] | None = None,
    train: bool = False,
  ) -> Sequence:
    """Embeds pictures, or bags of patches with their `coordinates`."""
    del train
    hiding.check(self.hidden)
    if inputs.ndim == 3:
      mask = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
      patches = self._normalized(inputs, coordinates)  # b n q
      table = positions_at(
        self.positions, self.grid, self.embed_dim, coordinates, mask
      )  # b n d
      places = coordinates.astype(jnp.float32)  # b n 2
    else:
      patches = self._features(inputs, hidden)  # b n q
      grid = tuple(side // self.patch_size for side in inputs.shape[1:3])
      table = self._table(grid, coordinates)  # 1 n d
      places = jnp.asarray(grid_coordinates(grid))[None]  # 1 n 2
    b, n, _ = patches.shape
    embed = Projection(
      (self.embed_dim,),
      (axes.PATCH, axes.EMBED),
      use_bias=self.patch_bias,
      precision=self.precision,
      name="patches",
    )
    mask = jnp.ones((b, n), bool) if mask is None else mask
    visible = None
    if hidden is not None and self.hidden == "drop":
      hiding.check_some_stay(hidden.shape[1], n)
      visible = complement(hidden, n)  # b n-k
      patches, places = _take(patches, visible), _take(places, visible)
      mask = jnp.take_along_axis(mask, visible, axis=1)
      table = None if table is None else _take(table, visible)
    x = embed(patches)
    if self.hidden == "replace":
      x = hiding.replace(self, x, hidden)
    if table is not None:
      x = x + table.astype(x.dtype)
    return Sequence(x, mask, visible, places, num_content=n)

  @property
  def patch_dim(self) -> int:
    """Numbers in a patch."""
    return self.patch_size**2 * len(self.pixel_mean)

  def cut(self, inputs: Array, mask: Array | None = None) -> Array:
    """The pixels of each patch as they come, `b n (p p c)`."""
    del mask
    return inputs if inputs.ndim == 3 else patchify(inputs, self.patch_size)

  def _table(self, grid, coordinates):
    """What is added to the patches of pictures."""
    if coordinates is not None:
      raise errors.UserError(
        "The batch says where patches are, but its images are whole."
      )
    if self.positions == "learned" and self.grid not in (None, grid):
      raise errors.UserError(
        f"An image of {grid[0]}x{grid[1]} patches; the model has learned "
        f"positions of {self.grid[0]}x{self.grid[1]}. Set image_size of model "
        "and data alike, or positions to 'sincos' or 'rotary'."
      )
    table = position_table(self.positions, grid, self.embed_dim)
    return None if table is None else table[None]

  def _normalized(self, inputs, coordinates):
    """Normalised pixels of patches that the data have cut."""
    channels = len(self.pixel_mean)
    if self.kind != "patch" or self.backbone is not None:
      raise errors.UserError(
        "Convolutions take whole images, not bags of patches: leave "
        "data.image.patches out, or use the encoder 'vit' with stem='patch'."
      )
    if coordinates is None or self.grid is None:
      raise errors.UserError(
        "A bag of patches needs the field image_coordinates, and a stem with a "
        "grid."
      )
    if inputs.shape[2] != self.patch_size**2 * channels:
      raise errors.UserError(
        f"The data have patches of {inputs.shape[2]} bytes, the model of "
        f"{self.patch_size}x{self.patch_size}x{channels}. Set patch_size of "
        "the encoder and of data.image.patches alike."
      )
    pixels = inputs.reshape(*inputs.shape[:2], -1, channels)  # b n (p p) c
    return normalize(pixels, self.pixel_mean, self.pixel_std).reshape(
      inputs.shape
    )

  def _features(self, inputs, hidden):
    """What the linear map of each patch gets."""
    if self.kind not in KINDS:
      raise errors.unknown("kind of stem", self.kind, KINDS)
    pixels = normalize(inputs, self.pixel_mean, self.pixel_std)
    patches = patchify(pixels, self.patch_size)  # b n (p p c)
    if self.kind == "patch" and self.backbone is None:
      return patches
    if hidden is not None:
      is_hidden = membership(hidden, patches.shape[1])[:, :, None]  # b n 1
      patches = jnp.where(is_hidden, 0.0, patches)
    grid = tuple(side // self.patch_size for side in inputs.shape[1:3])
    pixels = unpatchify(patches, grid, self.patch_size)
    if self.backbone is None:
      return ConvPatches(
        self.patch_size, self.embed_dim, self.precision, name="conv"
      )(pixels)
    features = self.backbone(pixels)
    return patchify(features, features.shape[1] // grid[0])


def _take(x, indices):
  """Rows of each example; the first axis of `x` is 1 if all have the same."""
  if x.shape[0] == 1:
    return jnp.take(x[0], indices, axis=0)
  return jnp.take_along_axis(x, indices[:, :, None], axis=1)


def own_grid(
  image_size: int, patch_size: int, image_grid: tuple[int, int] | None = None
) -> tuple[int, int]:
  """Rows and columns of the patches of an image.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of a patch, pixels.
    image_grid: as the data count them; None = they do not.

  Raises:
    UserError: patches do not tile the image, or the data count others.
  """
  if patch_size < 1 or image_size < 1 or image_size % patch_size:
    raise errors.UserError(
      f"image_size={image_size} is no multiple of patch_size={patch_size}."
    )
  grid = (image_size // patch_size, image_size // patch_size)
  if image_grid is not None and tuple(image_grid) != grid:
    raise errors.UserError(
      f"config.data.image.mask, or config.data.conversation, counts patches in "
      f"a grid of {image_grid[0]}x{image_grid[1]}; the encoder's is "
      f"{grid[0]}x{grid[1]}. Set its patch_size to that of the encoder."
    )
  return grid


def vit(
  *,
  patch_size: int,
  image_size: int | None = None,
  size: str | Mapping[str, Any] = "B",
  stem: str = "patch",
  positions: str = "learned",
  pool: str = "mean",
  pool_tanh: bool = False,
  pool_norm: bool = False,
  patch_bias: bool = True,
  input_norm: bool = False,
  fuse_before_norm: bool = False,
  registers: int = 0,
  hidden: str = "replace",
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
  image_patches: tuple[int, int] | None = None,
  image_grid: tuple[int, int] | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A vision transformer.

  Args:
    patch_size: height and width of a patch, pixels.
    image_size: height and width, pixels. Where the data cut patches of
      pictures of any shape, of the square one that learned positions are of;
      by default as large as the most patches allow.
    size: see `variants.resolve`.
    stem: "patch", a linear map of each; "conv", convolutions before it.
    positions: "learned", "sincos", "rotary" (by row and column) or "none".
    pool: "cls", "mean", "map" or "cls_mean".
    pool_tanh: a projection and tanh come after.
    pool_norm: a LayerNorm comes after, before these.
    patch_bias: the linear map of patches has a bias; CLIP's has none.
    input_norm: a norm before the stack too, of all tokens, as in CLIP.
    registers: learned tokens besides the patches (Darcet et al. 2024).
    hidden: what happens to hidden patches, "replace" or "drop".
    pixel_mean: mean of the pictures' channels, of pixels in 0..1. With the
      data's own, patches of a frequent colour do not drown the others.
    pixel_std: their standard deviation.
    image_patches: size in pixels and largest number of the patches that the
      data cut; None = they do not.
    image_grid: rows and columns of patches as the data count them, to hide
      some or to leave places for them; None = they do not.
    fuse_before_norm: fusions take what there is before the stack's last norm,
      as in FLAVA.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: patches that do not tile the image or are not those of the
      data, or no size.
  """
  if image_patches is not None:
    if image_patches[0] != patch_size:
      raise errors.UserError(
        f"patch_size={patch_size}, but config.data.image.patches cuts patches "
        f"of {image_patches[0]} pixels."
      )
    image_size = image_size or patch_size * math.isqrt(image_patches[1])
  if image_size is None:
    raise errors.UserError("image_size is missing, and the data do not say.")
  size = variants.resolve(size)
  options = stack_options(stack)
  if image_patches is not None and options.relative_positions != "none":
    raise errors.UserError(
      "Relative positions are of pictures of one shape: leave "
      "config.data.image.patches out, or set stack.relative_positions='none'."
    )
  grid = own_grid(image_size, patch_size, image_grid)
  return Encoder(
    PatchStem(
      patch_size,
      size.embed_dim,
      hidden,
      pixel_mean,
      pixel_std,
      stem,
      positions,
      grid,
      patch_bias=patch_bias,
      precision=precision,
    ),
    size,
    pool,
    registers,
    rotary=positions == "rotary",
    options=options,
    precision=precision,
    pool_tanh=pool_tanh,
    pool_norm=pool_norm,
    grid=grid,
    input_norm=input_norm,
    fuse_before_norm=fuse_before_norm,
  )
