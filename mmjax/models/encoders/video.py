"""Clips: tubelets, linearly embedded, mixed over space and time (ViViT)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence, complement
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.encoders.vit import normalize
from mmjax.models.layers import hidden as hiding
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import (
  grid_coordinates,
  position_table,
  rotary_angles,
)
from mmjax.models.layers.projection import Projection
from mmjax.models.layers.transformer import Stack


def tubelets(video: Array, frames: int, patch_size: int) -> Array:
  """Cuts clips into flattened tubelets: time slowest, then rows, columns.

  `b f h w c` -> `b (f/t h/p w/p) (t p p c)`, where t is `frames`.

  Raises:
    UserError: the tubelets do not tile the clip.
  """
  b, f, h, w, c = video.shape
  if f % frames or h % patch_size or w % patch_size:
    raise errors.UserError(
      f"A clip of {f} frames of {h}x{w} pixels does not split into tubelets of "
      f"{frames} frames of {patch_size}x{patch_size}."
    )
  times, rows, columns = f // frames, h // patch_size, w // patch_size
  x = video.reshape(
    b, times, frames, rows, patch_size, columns, patch_size, c
  )  # b times t rows p columns p c
  x = x.transpose(0, 1, 3, 5, 2, 4, 6, 7)  # b times rows columns t p p c
  return x.reshape(b, times * rows * columns, frames * patch_size**2 * c)


class TubeletStem(nn.Module):
  """Embeds the tubelets of a clip.

  Source: Arnab et al. 2021 (arXiv:2103.15691), 3.2, "tubelet embedding".
  Hidden tubelets are replaced by a learned token, or dropped, which saves
  their share of the encoder's work (VideoMAE, Tong et al. 2022).

  Raises:
    UserError: unknown way to hide, or tubelets that do not tile the clip.
  """

  tubelet_frames: int
  patch_size: int  # Pixels.
  embed_dim: int
  hidden: str = "replace"  # "replace" or "drop".
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # Of pixels in 0..1.
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5)
  positions: str = "learned"  # See `layers.positions.KINDS`.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    inputs: UInt8[Array, "b f h w c"],
    *,
    mask: Bool[Array, "b n"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    train: bool = False,
  ) -> Sequence:
    del train
    hiding.check(self.hidden)
    cut = tubelets(inputs, self.tubelet_frames, self.patch_size)  # b n q
    b, n, _ = cut.shape
    f, h, w, c = inputs.shape[1:]
    grid = (
      f // self.tubelet_frames,
      h // self.patch_size,
      w // self.patch_size,
    )
    table = position_table(self.positions, grid, self.embed_dim)
    coordinates = jnp.asarray(grid_coordinates(grid))[None]  # 1 n 3
    mask = jnp.ones((b, n), bool) if mask is None else mask
    visible = None
    if hidden is not None and self.hidden == "drop":
      # While they are bytes: a quarter of what is moved, and normalising of
      # one tubelet in ten.
      visible = complement(hidden, n)  # b n-k
      cut = jnp.take_along_axis(cut, visible[:, :, None], axis=1)
      mask = jnp.take_along_axis(mask, visible, axis=1)
      coordinates = jnp.take(coordinates[0], visible, axis=0)  # b n-k 3
    pixels = cut.reshape(*cut.shape[:2], -1, c)  # b n (t p p) c
    pixels = normalize(pixels, self.pixel_mean, self.pixel_std)
    # Named as in `PatchStem`, so that names of a picture's encoder fit.
    x = Projection(
      (self.embed_dim,),
      (axes.PATCH, axes.EMBED),
      precision=self.precision,
      name="patches",
    )(pixels.reshape(cut.shape))
    if self.hidden == "replace":
      x = hiding.replace(self, x, hidden)
    if table is not None:
      table = (
        table[None] if visible is None else jnp.take(table, visible, axis=0)
      )
      x = x + table.astype(x.dtype)
    return Sequence(x, mask, visible, coordinates, num_content=n)

  @property
  def patch_dim(self) -> int:
    """Numbers in a tubelet."""
    return self.tubelet_frames * self.patch_size**2 * len(self.pixel_mean)

  def cut(self, inputs: Array, mask: Array | None = None) -> Array:
    """The pixels of each tubelet as they come, `b n (t p p c)`."""
    del mask
    return tubelets(inputs, self.tubelet_frames, self.patch_size)


class FactorisedEncoder(Encoder):
  """Mixes the tokens of each time, then those of each place over time.

  Attention over n = times x places tokens costs n^2; here n x places, then
  n x times. The order is that of ViViT's factorised encoder (Arnab et al.
  2021, 3.3, "model 2"), but, as in its model 3 and in TimeSformer (Bertasius
  et al. 2021, arXiv:2102.05095), all places go on through time: every token
  has an output. Special tokens are in every time's sequence and are a place of
  their own; the mean of theirs over the times that count is theirs.

  `stack` mixes space, `time_stack` time; stochastic depth leaves out a branch
  of one time or place of an example. No token may have been dropped.
  """

  num_times: int = 1  # Tubelets along time.
  time_layers: int = 4

  def setup(self):
    super().setup()
    self.time_stack = Stack(
      self.time_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      precision=self.precision,
    )

  def _mix(self, sequence, train):
    b, _, d = sequence.x.shape
    times, prefix = self.num_times, sequence.num_prefix
    x, mask = sequence.content, sequence.content_mask
    x = x.reshape(b * times, -1, d)  # (b times) places d
    mask = mask.reshape(b, times, -1)  # b times places
    special = jnp.repeat(sequence.x[:, :prefix], times, axis=0)
    x = jnp.concatenate([special, x], axis=1)
    # A time none of whose places counts doesn't count for special tokens.
    counts = jnp.any(mask, axis=2, keepdims=True)
    counts = counts & sequence.mask[:, None, :prefix]
    mask = jnp.concatenate([counts, mask], axis=2)
    n = x.shape[1]  # Prefix and places.

    space, time = self._axis_angles(sequence)
    x = self.stack(
      x, mask=mask.reshape(b * times, 1, n), train=train, angles=space
    )
    x = x.reshape(b, times, n, d).swapaxes(1, 2)  # b n times d
    mask = mask.swapaxes(1, 2)  # b n times
    x = self.time_stack(
      x.reshape(b * n, times, d),
      mask=mask.reshape(b * n, 1, times),
      train=train,
      angles=time,
    )
    x = x.reshape(b, n, times, d)
    special = _mean(x[:, :prefix], mask[:, :prefix])  # b prefix d
    content = x[:, prefix:].swapaxes(1, 2)  # b times places d
    content = content.reshape(b, -1, d)  # b (times places) d
    return jnp.concatenate([special, content], axis=1)

  def _axis_angles(self, sequence):
    if not self.rotary:
      return None, None
    head_dim = self.size.embed_dim // self.size.num_heads
    # Nothing was dropped, so they are the same in all examples.
    where = sequence.coordinates[0].reshape(self.num_times, -1, 3)
    # Special tokens are nowhere: they are not turned.
    place = jnp.pad(
      where[:1, :, 1:], ((0, 0), (sequence.num_prefix, 0), (0, 0))
    )
    time = where[None, :, 0, :1]  # 1 times 1
    return rotary_angles(place, head_dim), rotary_angles(time, head_dim)


def _mean(
  x: Float[Array, "b n f d"], mask: Bool[Array, "b n f"]
) -> Float[Array, "b n d"]:
  """The mean over what counts, in float32; 0 where nothing does."""
  weights = mask[..., None].astype(jnp.float32)
  total = jnp.sum(x.astype(jnp.float32) * weights, axis=2)
  return (total / jnp.maximum(jnp.sum(weights, axis=2), 1.0)).astype(x.dtype)


def video(
  *,
  video_size: int,
  num_frames: int,
  patch_size: int,
  tubelet_frames: int = 2,
  size: str | Mapping[str, Any] = "B",
  positions: str = "learned",
  pool: str = "mean",
  registers: int = 0,
  hidden: str = "replace",
  factorised: bool = False,
  time_layers: int = 0,
  pixel_mean: tuple[float, ...] = (0.5, 0.5, 0.5),
  pixel_std: tuple[float, ...] = (0.5, 0.5, 0.5),
  video_grid: tuple[int, int, int] | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A video vision transformer.

  Args:
    video_size: height and width, pixels.
    num_frames: of a clip.
    patch_size: height and width of a tubelet, pixels.
    tubelet_frames: frames of a tubelet.
    size: see `variants.resolve`.
    positions: "learned", "sincos", "rotary" (by time, row and column) or
      "none".
    pool: "cls", "mean" or "map".
    registers: learned tokens besides the tubelets (Darcet et al. 2024).
    hidden: what happens to hidden tubelets, "replace" or "drop".
    factorised: attention over space, then over time, see `FactorisedEncoder`,
      instead of over all tubelets.
    time_layers: of the factorised encoder, which come after `size`'s over
      space; 0 = as many as those.
    pixel_mean: mean of the frames' channels, of pixels in 0..1.
    pixel_std: their standard deviation.
    video_grid: times, rows and columns of tubelets as the data's mask counts
      them; None = nothing is hidden.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: tubelets do not tile the clip or are not those of the data, or
      options that don't go together.
  """
  if video_size % patch_size or num_frames % tubelet_frames:
    raise errors.UserError(
      f"video_size={video_size} has to be a multiple of patch_size="
      f"{patch_size}, and num_frames={num_frames} one of tubelet_frames="
      f"{tubelet_frames}."
    )
  rows = video_size // patch_size
  grid = (num_frames // tubelet_frames, rows, rows)
  if video_grid is not None and tuple(video_grid) != grid:
    raise errors.UserError(
      f"config.data.video.mask hides tubelets of a grid of "
      f"{tuple(video_grid)}, times x rows x columns; the encoder has {grid}. "
      "Set patch_size and tubelet_frames of the mask to those of the encoder."
    )
  size = variants.resolve(size)
  stem = TubeletStem(
    tubelet_frames,
    patch_size,
    size.embed_dim,
    hidden,
    pixel_mean,
    pixel_std,
    positions,
    precision,
  )
  common = dict(
    stem=stem,
    size=size,
    pool_kind=pool,
    registers=registers,
    rotary=positions == "rotary",
    options=stack_options(stack),
    precision=precision,
  )
  if not factorised:
    if time_layers:
      raise errors.UserError(
        f"time_layers={time_layers} is of the factorised encoder: set "
        "factorised=True."
      )
    return Encoder(**common)
  if hidden == "drop":
    raise errors.UserError(
      "factorised=True needs all tubelets of each time and place, and "
      "hidden='drop' leaves some out: set hidden='replace' or "
      "factorised=False."
    )
  return FactorisedEncoder(
    **common,
    num_times=grid[0],
    time_layers=time_layers or size.num_layers,
  )
