"""A quantiser without training: random projection, random codebook.

Source: BEST-RQ (Chiu et al. 2022, arXiv:2202.01855), 3.1.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Float32, Int

from mmjax.core import errors
from mmjax.models.encoders.audio import cut_patches
from mmjax.models.encoders.video import tubelets
from mmjax.models.encoders.vit import patchify
from mmjax.models.layers.log_mel import (
  WHISPER,
  LogMel,
  LogMelOptions,
  log_mel_options,
)
from mmjax.models.layers.norm import unit_length

EPSILON = 1e-5  # Of the variance; log-mels and pixels are of the order of 1.
EXACT = jax.lax.Precision.HIGHEST  # Codes must be the same on all devices.


class RandomProjection(nn.Module):
  """Codes of pictures, clips and recordings, a function of the seed alone.

  Each channel (colour, mel band) is brought to mean 0 and variance 1 over what
  is real of its example; then patches are cut as the encoder cuts them. A patch
  x gets the code c that is nearest to A x, both of unit length; A is uniform as
  by Glorot, codes are normally distributed. Which it is (picture, clip,
  waveform), the number of axes says.
  """

  patch_size: tuple[int, int]  # Pixels x pixels, or frames x mels.
  num_codes: int
  code_dim: int
  seed: int
  tubelet_frames: int = 1  # Of clips.
  log_mel: LogMel | None = None  # Of waveforms.

  learned = False

  @property
  def identity(self) -> str:
    """All that the codes depend on: there are no variables."""
    return (
      f"random_projection {self.patch_size} {self.num_codes} {self.code_dim} "
      f"{self.seed} {self.tubelet_frames} {self.log_mel}"
    )

  def codes(
    self, inputs: Array, mask: Bool[Array, "b ..."] | None = None
  ) -> Int[Array, "b n"]:
    """The codes, in the order of the encoder's tokens.

    Args:
      inputs: uint8 b h w c or b f h w c, or float32 b t.
      mask: of the samples of waveforms, True = real.
    """
    patches = self._patches(inputs, mask)  # b n q
    projection, codebook = _constants(
      self.seed, patches.shape[-1], self.code_dim, self.num_codes
    )
    vectors = jnp.matmul(patches, projection, precision=EXACT)
    scores = jnp.matmul(unit_length(vectors), codebook.T, precision=EXACT)
    return jnp.argmax(scores, axis=-1).astype(jnp.int32)

  def _patches(self, inputs, mask):
    if inputs.ndim == 2:
      return self._audio_patches(inputs, mask)
    if inputs.ndim not in (4, 5):
      raise errors.UserError(
        f"random_projection takes pictures, clips and waveforms; got an array "
        f"of {inputs.ndim} axes."
      )
    if self.patch_size[0] != self.patch_size[1]:
      raise errors.UserError(
        f"patch_size={self.patch_size}: those of pictures are square."
      )
    b, *shape, c = inputs.shape
    flat = inputs.astype(jnp.float32).reshape(b, -1, c) / 255.0
    pixels = standardize(flat, jnp.ones(flat.shape[:2], bool))
    pixels = pixels.reshape(b, *shape, c)
    if inputs.ndim == 4:
      return patchify(pixels, self.patch_size[0])
    return tubelets(pixels, self.tubelet_frames, self.patch_size[0])

  def _audio_patches(self, audio, mask):
    if self.log_mel is None:
      raise errors.UserError(
        "No config.data.audio: the sample rate is unknown."
      )
    mask = jnp.ones(audio.shape, bool) if mask is None else mask
    mels = self.log_mel(audio, mask)  # b f m
    mels = standardize(mels, self.log_mel.frame_mask(mask))
    return cut_patches(mels, self.patch_size, self.patch_size)


def standardize(
  x: Float[Array, "b n c"], mask: Bool[Array, "b n"]
) -> Float[Array, "b n c"]:
  """Mean 0, variance 1 of each channel over what counts; 0 elsewhere."""
  counts = mask[:, :, None]
  number = jnp.maximum(jnp.sum(counts, axis=1, keepdims=True), 1)
  mean = jnp.sum(jnp.where(counts, x, 0.0), axis=1, keepdims=True) / number
  centred = jnp.where(counts, x - mean, 0.0)
  variance = jnp.sum(centred**2, axis=1, keepdims=True) / number
  return centred / jnp.sqrt(variance + EPSILON)


@functools.lru_cache(maxsize=8)
def _constants(
  seed: int, patch_dim: int, code_dim: int, num_codes: int
) -> tuple[Float32[np.ndarray, "q d"], Float32[np.ndarray, "k d"]]:
  """The projection, and the codes of unit length.

  By numpy's legacy generator, whose stream is frozen: the codes of a seed are
  the same with all versions of all libraries.
  """
  rng = np.random.RandomState(seed)
  limit = math.sqrt(6.0 / (patch_dim + code_dim))
  projection = rng.uniform(-limit, limit, (patch_dim, code_dim))
  codebook = rng.standard_normal((num_codes, code_dim))
  codebook /= np.linalg.norm(codebook, axis=1, keepdims=True)
  return projection.astype(np.float32), codebook.astype(np.float32)


def random_projection(
  *,
  patch_size: int | tuple[int, int],
  num_codes: int = 8192,
  code_dim: int = 16,
  seed: int = 0,
  tubelet_frames: int = 2,
  log_mel: LogMelOptions | Mapping[str, Any] = WHISPER,
  sample_rate: int | None = None,
) -> RandomProjection:
  """A quantiser that needs no training.

  Args:
    patch_size: as that of the encoder: pixels, or frames x mels.
    num_codes: size of the codebook; BEST-RQ's.
    code_dim: channels of a code; BEST-RQ's.
    seed: of projection and codebook.
    tubelet_frames: of clips, as that of the encoder.
    log_mel: of waveforms, as that of the encoder, see `LogMelOptions`.
    sample_rate: of waveforms, Hz.

  Raises:
    UserError: sizes below 1, or a spectrogram that does not go with the rate.
  """
  if isinstance(patch_size, int):
    patch_size = (patch_size, patch_size)
  patch_size = (patch_size[0], patch_size[1])  # JSON has lists.
  if min(*patch_size, num_codes, code_dim, tubelet_frames) < 1:
    raise errors.UserError(
      f"patch_size={patch_size}, num_codes={num_codes}, code_dim={code_dim}, "
      f"tubelet_frames={tubelet_frames}, expected at least 1."
    )
  mel = sample_rate and LogMel(sample_rate, log_mel_options(log_mel))
  return RandomProjection(
    patch_size, num_codes, code_dim, seed, tubelet_frames, mel or None
  )
