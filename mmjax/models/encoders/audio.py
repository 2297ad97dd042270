"""Audio: waveforms -> log-mel spectrogram -> patches or convolutions."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence, complement, membership
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.layers import hidden as hiding
from mmjax.models.layers import spec_augment as spec_augment_lib
from mmjax.models.layers.log_mel import (
  WHISPER,
  LogMel,
  LogMelOptions,
  log_mel_options,
)
from mmjax.models.layers.mlp import ACTIVATIONS
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import grid_coordinates, position_table
from mmjax.models.layers.projection import Projection
from mmjax.models.layers.spec_augment import OFF, SpecAugmentOptions

KINDS = ("patches", "conv")
CONV_WIDTH = 3  # Frames.
CONV_STRIDE = 2  # Frames a token, of the second convolution.


def cut_windows(
  mels: Float[Array, "b f m"], width: int, stride: int
) -> Float[Array, "b w width m"]:
  """Windows of `width` frames (or mels), `stride` apart, that fit."""
  count = (mels.shape[1] - width) // stride + 1
  reach = (count - 1) * stride + 1
  parts = [mels[:, i : i + reach : stride] for i in range(width)]
  return jnp.stack(parts, axis=2)


def cut_patches(
  mels: Float[Array, "b f m"],
  patch_size: tuple[int, int],
  stride: tuple[int, int],
) -> Float[Array, "b n q"]:
  """Cuts spectrograms into flattened patches, time slowest.

  Sizes are frames x mels. Zeros fill the last patches, so that nothing of the
  spectrogram is left out.
  """
  b, num_frames, num_mels = mels.shape
  grid = patch_grid((num_frames, num_mels), patch_size, stride)
  padding = [
    max(0, (count - 1) * step + size - length)
    for count, step, size, length in zip(
      grid, stride, patch_size, mels.shape[1:], strict=True
    )
  ]
  mels = jnp.pad(mels, ((0, 0), *((0, p) for p in padding)))
  x = cut_windows(mels, patch_size[0], stride[0])  # b time frames m
  x = x.reshape(b * grid[0], patch_size[0], -1).swapaxes(1, 2)
  x = cut_windows(x, patch_size[1], stride[1])  # (b time) row mels frames
  x = x.swapaxes(2, 3)  # (b time) row frames mels
  return x.reshape(b, grid[0] * grid[1], -1)  # b (time row) (frames mels)


def patch_grid(
  shape: tuple[int, int], patch_size: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int]:
  """Patches along time and frequency that cover frames x mels."""
  time, mel = (
    -(-max(0, length - size) // step) + 1
    for length, size, step in zip(shape, patch_size, stride, strict=True)
  )
  return time, mel


class AudioStem(nn.Module):
  """Embeds the log-mel spectrogram of a waveform.

  "patches": each linearly (AST, Gong et al. 2021, arXiv:2104.01778, 2.1),
  time slowest, then frequency from low to high; a token counts if any of its
  frames does. "conv": two convolutions over time of width 3, with GELU, the
  second of stride 2 (Whisper, Radford et al. 2022, arXiv:2212.04356, 2.2);
  token j counts if frame 2 j does. Convolutions see zeros in place of frames
  that are not real, so that padding changes nothing.

  Hidden tokens are replaced by a learned one or dropped, as in `PatchStem`.
  Those of "conv" are two frames each, which the convolutions see as zeros.
  Frames are hidden, not samples: windows of the next frames share some.

  In training, SpecAugment, if it is on, draws from the stream "dropout".

  Raises:
    UserError: unknown kind of stem or way to hide, recordings that are too
      long, or hidden patches that others overlap.
  """

  log_mel: LogMel
  num_samples: int  # Of the longest recording: rows of the position table.
  embed_dim: int
  kind: str = "patches"
  patch_size: tuple[int, int] = (16, 16)  # Frames x mels, of "patches".
  stride: tuple[int, int] = (16, 16)  # From patch to patch.
  hidden: str = "replace"  # "replace" or "drop".
  positions: str = "learned"  # See `layers.positions.KINDS`.
  augment: SpecAugmentOptions = OFF
  precision: precision_lib.Precision = precision_lib.FLOAT32
  # False: the silence after a recording is part of it, as Whisper has it.
  mask_padding: bool = True

  def grid(self, num_samples: int) -> tuple[int, int]:
    """Tokens along time and frequency of so long a recording."""
    num_frames = self.log_mel.num_frames(num_samples)
    if self.kind == "conv":
      return -(-num_frames // CONV_STRIDE), 1
    shape = (num_frames, self.log_mel.options.num_mels)
    return patch_grid(shape, self.patch_size, self.stride)

  @nn.compact
  def __call__(
    self,
    inputs: Float[Array, "b t"],
    *,
    mask: Bool[Array, "b t"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    train: bool = False,
  ) -> Sequence:
    """Embeds waveforms, -1..1; `mask` is of their samples."""
    self._check(inputs, hidden)
    grid = self.grid(inputs.shape[1])
    n = grid[0] * grid[1]
    mask = jnp.ones(inputs.shape, bool) if mask is None else mask
    if not self.mask_padding:
      inputs = jnp.where(mask, inputs, 0.0)
      mask = jnp.ones(inputs.shape, bool)
    frame_mask = self.log_mel.frame_mask(mask)  # b f
    mels = self.log_mel(inputs, mask)
    if train and self.augment.active:
      key = self.make_rng("dropout")
      mels = spec_augment_lib.spec_augment(key, mels, frame_mask, self.augment)
    is_hidden = None if hidden is None else membership(hidden, n)  # b n
    x = self._features(mels, frame_mask, is_hidden)  # b n q
    mask = self._token_mask(frame_mask, grid)  # b n
    coordinates = jnp.asarray(grid_coordinates(_lengths(grid)))[None]  # 1 n c
    visible = None
    if hidden is not None and self.hidden == "drop":
      visible = complement(hidden, n)  # b n-k
      x = jnp.take_along_axis(x, visible[:, :, None], axis=1)
      mask = jnp.take_along_axis(mask, visible, axis=1)
      coordinates = jnp.take(coordinates[0], visible, axis=0)  # b n-k c
    x = self._embed(x)
    if self.hidden == "replace":
      x = hiding.replace(self, x, hidden)
    table = position_table(
      self.positions, _lengths(self.grid(self.num_samples)), self.embed_dim
    )
    if table is not None:
      # Time is slowest: a shorter recording has the first rows.
      table = table[None, :n] if visible is None else table[visible]
      x = x + table.astype(x.dtype)
    return Sequence(x, mask, visible, coordinates, num_content=n)

  @property
  def patch_dim(self) -> int:
    """Numbers in a patch of the spectrogram; 0 of convolutions."""
    return math.prod(self.patch_size) if self.kind == "patches" else 0

  def cut(self, inputs: Array, mask: Array | None = None) -> Array:
    """The log-mels of each patch, `b n (frames mels)`."""
    mels = self.log_mel(inputs, mask)
    return cut_patches(mels, self.patch_size, self.stride)

  def _check(self, inputs, hidden):
    if self.kind not in KINDS:
      raise errors.unknown("kind of stem", self.kind, KINDS)
    hiding.check(self.hidden)
    if not self.log_mel.hop <= inputs.shape[1] <= self.num_samples:
      raise errors.UserError(
        f"audio has {inputs.shape[1]} samples; the model takes "
        f"{self.log_mel.hop}, a frame, to num_samples={self.num_samples}."
      )
    if (
      hidden is not None
      and self.kind == "patches"
      and any(s < p for s, p in zip(self.stride, self.patch_size, strict=True))
    ):
      raise errors.UserError(
        f"Patches of {self.patch_size} frames x mels, {self.stride} apart, "
        "overlap: others would show what is hidden of one. Set stride to the "
        "patch_size, or hide nothing."
      )

  def _features(self, mels, frame_mask, is_hidden):
    """What is projected to make each token."""
    if self.kind == "patches":
      return cut_patches(mels, self.patch_size, self.stride)
    if is_hidden is not None:
      frames = jnp.repeat(is_hidden, CONV_STRIDE, axis=1)  # b 2n
      mels = jnp.where(frames[:, : mels.shape[1], None], 0.0, mels)
    x = self._project("conv_0", (axes.PATCH, axes.MLP))(_convolve(mels, 1))
    x = jnp.where(frame_mask[:, :, None], ACTIVATIONS["gelu"](x), 0.0)
    return _convolve(x, CONV_STRIDE)

  def _embed(self, x):
    if self.kind == "patches":
      return self._project("patches", (axes.PATCH, axes.EMBED))(x)
    # A convolution is a projection of windows: as such it obeys `precision`.
    return ACTIVATIONS["gelu"](
      self._project("conv_1", (axes.MLP, axes.EMBED))(x)
    )

  def _project(self, name, kernel_axes):
    return Projection(
      (self.embed_dim,), kernel_axes, precision=self.precision, name=name
    )

  def _token_mask(self, frame_mask, grid):
    if self.kind == "conv":
      return frame_mask[:, ::CONV_STRIDE]
    # As if every frame were a spectrogram of one mel.
    width, step = self.patch_size[0], self.stride[0]
    frames = frame_mask[:, :, None].astype(jnp.float32)
    columns = cut_patches(frames, (width, 1), (step, 1)) > 0  # b time width
    return jnp.repeat(jnp.any(columns, axis=2), grid[1], axis=1)


def _convolve(x, stride):
  """The windows that a convolution sums over, flattened, zeros around."""
  x = jnp.pad(x, ((0, 0), (1, 1), (0, 0)))
  windows = cut_windows(x, CONV_WIDTH, stride)  # b w width m
  return windows.reshape(*windows.shape[:2], -1)


def _lengths(grid):
  """The axes of a grid that positions go by: time alone if that is all."""
  return grid if grid[1] > 1 else grid[:1]


def audio(
  *,
  sample_rate: int,
  num_samples: int,
  size: str | Mapping[str, Any] = "B",
  stem: str = "patches",
  patch_size: tuple[int, int] = (16, 16),
  stride: tuple[int, int] = (0, 0),
  positions: str = "learned",
  pool: str = "mean",
  pool_projection: int = 0,
  registers: int = 0,
  hidden: str = "replace",
  log_mel: LogMelOptions | Mapping[str, Any] = WHISPER,
  mask_padding: bool = True,
  spec_augment: SpecAugmentOptions | Mapping[str, Any] = OFF,
  audio_grid: tuple[int, int] | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """An audio spectrogram transformer.

  Args:
    sample_rate: of the waveforms, Hz.
    num_samples: of the longest waveform.
    size: see `variants.resolve`.
    stem: "patches" of the spectrogram (AST), or "conv" over time (Whisper).
    patch_size: frames x mels.
    stride: from patch to patch, frames x mels; 0 = the patch size. Smaller
      ones overlap.
    positions: "learned", "sincos", "rotary" (by time and frequency) or "none".
    pool: "cls", "mean" or "map".
    pool_projection: channels of a projection that comes after; 0 = none.
    registers: learned tokens besides those of the spectrogram.
    hidden: what happens to hidden tokens, "replace" or "drop".
    log_mel: see `LogMelOptions`.
    mask_padding: what is put after a recording doesn't count. False: it is
      silence like any other, which is attended to (Whisper).
    spec_augment: see `SpecAugmentOptions`.
    audio_grid: tokens along time and frequency as the data's mask counts
      them; None = nothing is hidden.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: options outside their domain, or another grid than the data's.
  """
  mel = LogMel(sample_rate, log_mel_options(log_mel))
  patch_size = (patch_size[0], patch_size[1])  # JSON has lists.
  stride = (stride[0] or patch_size[0], stride[1] or patch_size[1])
  for step, length in zip(stride, patch_size, strict=True):
    if not 0 < step <= length:
      raise errors.UserError(
        f"patch_size={patch_size}, stride={stride}, expected a patch of at "
        "least 1 frame x 1 mel and a stride that leaves nothing out."
      )
  size = variants.resolve(size)
  made = AudioStem(
    mel,
    num_samples,
    size.embed_dim,
    stem,
    patch_size,
    stride,
    hidden,
    positions,
    spec_augment_lib.spec_augment_options(spec_augment),
    precision,
    mask_padding,
  )
  if audio_grid is not None and made.grid(num_samples) != tuple(audio_grid):
    raise errors.UserError(
      f"config.data.audio.mask hides tokens of a grid of {tuple(audio_grid)}, "
      f"time x frequency; the encoder has {made.grid(num_samples)}. Set the "
      "mask's hop_secs, num_mels and patch_size as those of the encoder "
      f"(for stem='conv', a patch of {CONV_STRIDE} frames x num_mels)."
    )
  return Encoder(
    made,
    size,
    pool,
    registers,
    rotary=positions == "rotary",
    options=stack_options(stack),
    precision=precision,
    pool_projection=pool_projection,
  )
