"""SpecAugment: hides stretches of time and bands of a spectrogram."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.core import errors, registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecAugmentOptions:
  """The `spec_augment` section of an audio encoder; off by default.

  Source: Park et al. 2019 (arXiv:1904.08779), 2, without time warping, which
  they found to matter least. Their policy "LibriSpeech double" is two masks
  of each kind, of up to 100 frames and 27 mels (of 80).

  Raises:
    UserError: a number outside its domain.
  """

  time_masks: int = 0
  max_frames: int = 100  # Longest stretch.
  max_share: float = 1.0  # And no more than this share of the real frames.
  mel_masks: int = 0
  max_mels: int = 27  # Widest band.

  def __post_init__(self):
    for name in ("time_masks", "max_frames", "mel_masks", "max_mels"):
      if getattr(self, name) < 0:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected 0 or more."
        )
    if not 0 < self.max_share <= 1:
      raise errors.UserError(f"max_share={self.max_share}, expected (0, 1].")

  @property
  def active(self) -> bool:
    return bool(self.time_masks or self.mel_masks)


OFF = SpecAugmentOptions()


def spec_augment_options(
  section: SpecAugmentOptions | Mapping[str, Any],
) -> SpecAugmentOptions:
  """Options from the section of a config.

  Raises:
    UserError: an unknown key or a wrong value.
  """
  if isinstance(section, SpecAugmentOptions):
    return section
  return registry.construct("spec_augment", SpecAugmentOptions, dict(section))


def spec_augment(
  key: jax.Array,
  mels: Float[Array, "b f m"],
  mask: Bool[Array, "b f"],
  options: SpecAugmentOptions,
) -> Float[Array, "b f m"]:
  """Puts 0 where masks fall, drawn for each example anew.

  The number of masks is fixed, their widths are drawn from 0 to the widest;
  stretches of time lie within the real frames of their example.

  Args:
    key: all that the masks depend on.
    mels: normalised, so that 0 is about their mean.
    mask: True where a frame is real.
    options: how many masks, how wide.
  """
  b, _, num_mels = mels.shape
  time_key, mel_key = jax.random.split(key)
  real = jnp.sum(mask, axis=1)  # b
  widest = jnp.minimum(
    options.max_frames, jnp.floor(options.max_share * real).astype(int)
  )
  # Of each real frame, how many others come before it.
  place = jnp.cumsum(mask, axis=1) - 1  # b f
  hidden = _stretches(time_key, place, real, widest, options.time_masks)
  bands = _stretches(
    mel_key,
    jnp.broadcast_to(jnp.arange(num_mels)[None], (b, num_mels)),
    jnp.full(b, num_mels),
    jnp.full(b, min(options.max_mels, num_mels)),
    options.mel_masks,
  )  # b m
  hidden = (hidden & mask)[:, :, None]  # b f 1
  return jnp.where(hidden | bands[:, None, :], 0.0, mels)


def _stretches(key, place, length, widest, count):
  """True where `place` lies in one of `count` random stretches of `length`."""
  widths, starts = jax.random.uniform(key, (2, place.shape[0], count))
  # The least of both guards against a draw that rounds up to 1.
  widest, length = widest[:, None], length[:, None]  # b 1
  width = jnp.minimum(jnp.floor(widths * (widest + 1)).astype(int), widest)
  room = length - width
  start = jnp.minimum(jnp.floor(starts * (room + 1)).astype(int), room)
  place = place[:, :, None]  # b n 1
  start, end = start[:, None], (start + width)[:, None]  # b 1 count
  return jnp.any((start <= place) & (place < end), axis=2)
