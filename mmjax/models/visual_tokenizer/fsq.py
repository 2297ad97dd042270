"""Finite scalar quantisation: a grid in place of a codebook.

Source: Mentzer et al. 2024 (arXiv:2309.15505), section 3.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mmjax.core import errors
from mmjax.core import precision as precision_lib
from mmjax.models.visual_tokenizer.codebook import Quantized
from mmjax.models.visual_tokenizer.tokenizer import (
  VisualTokenizer,
  make_tokenizer,
)

MIN_LEVELS = 3  # With 2, none would have 0 in its middle.


class FiniteScalars(nn.Module):
  """Rounds each channel to one of a few levels; a code is their combination.

  Channel z of L levels becomes round(h tanh(z + s) - o), with h = (L - 1) / 2,
  o = 1/2 if L is even (so that there are L whole numbers in its range) else 0,
  and s such that 0 stays 0. Vectors are the whole numbers divided by L // 2.
  There is nothing to learn or to collapse, and no commitment loss.

  The code's index is a number whose digits are the levels, the first channel's
  being the lowest.
  """

  levels: tuple[int, ...]

  @property
  def code_dim(self) -> int:
    """Channels of a code."""
    return len(self.levels)

  @property
  def num_codes(self) -> int:
    """All combinations of levels."""
    return math.prod(self.levels)

  @property
  def identity(self) -> str:
    """No variable holds the levels."""
    return f"fsq {tuple(self.levels)}"

  def __call__(
    self, vectors: Float[Array, "b n c"], *, train: bool
  ) -> Quantized:
    """Quantises; the same in training."""
    del train
    levels = np.asarray(self.levels)
    bounded = bound(vectors.astype(jnp.float32), self.levels)
    whole = jnp.round(bounded)
    # Straight through: the rounded value, the gradient of the bounded one.
    passed = bounded + jax.lax.stop_gradient(whole - bounded)
    half = (levels // 2)[None, None]
    weights = np.cumprod([1, *self.levels[:-1]])[None, None]
    digits = whole.astype(jnp.int32) + half
    return Quantized(
      passed / half,
      jnp.sum(digits * weights, axis=-1, dtype=jnp.int32),
      jnp.zeros(vectors.shape[:2]),
      jnp.zeros(()),
    )

  def lookup(self, codes: Int[Array, "b n"]) -> Float[Array, "b n c"]:
    """The vectors of codes."""
    levels = np.asarray(self.levels)[None, None]
    weights = np.cumprod([1, *self.levels[:-1]])[None, None]
    digits = (codes[:, :, None] // weights) % levels
    return (digits - levels // 2) / (levels // 2).astype(np.float32)


def bound(
  vectors: Float[Array, "b n c"], levels: tuple[int, ...]
) -> Float[Array, "b n c"]:
  """Squeezes each channel to where its levels lie."""
  number = np.asarray(levels, np.float64)
  half = (number - 1) / 2
  offset = np.where(number % 2 == 0, 0.5, 0.0)
  shift = np.arctanh(offset / half)  # So that 0 is a level's middle.
  half, offset, shift = (
    jnp.asarray(x, jnp.float32)[None, None] for x in (half, offset, shift)
  )
  return half * jnp.tanh(vectors + shift) - offset


def fsq(
  *,
  image_size: int,
  patch_size: int,
  levels: tuple[int, ...] = (8, 5, 5, 5),
  encoder_size: str | Mapping[str, Any] = "B",
  decoder_size: str | Mapping[str, Any] = "B",
  tubelet_frames: int = 1,
  clips: str = "middle_frame",
  num_frames: int | None = None,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> VisualTokenizer:
  """A visual tokenizer with finite scalar quantisation.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of what becomes one code, pixels.
    levels: of each channel of a code; there are as many codes as their
      product. The paper's are (8, 6, 5), (8, 5, 5, 5), (7, 5, 5, 5, 5),
      (8, 8, 8, 6, 5) and (8, 8, 8, 5, 5, 5), for about 2^8, 2^10, 2^12, 2^14
      and 2^16 codes.
    encoder_size: see `variants.resolve`.
    decoder_size: see `variants.resolve`.
    tubelet_frames: see `tokenizer.vq`.
    clips: see `tokenizer.vq`.
    num_frames: of the data's clips.
    precision: see `core.precision`.

  Raises:
    UserError: too few levels, or patches that do not tile the image.
  """
  if not levels or min(levels) < MIN_LEVELS:
    raise errors.UserError(
      f"levels={tuple(levels)}, expected at least {MIN_LEVELS} of each channel."
    )
  return make_tokenizer(
    FiniteScalars(tuple(levels)),
    image_size=image_size,
    patch_size=patch_size,
    encoder_size=encoder_size,
    decoder_size=decoder_size,
    tubelet_frames=tubelet_frames,
    clips=clips,
    num_frames=num_frames,
    precision=precision,
  )
