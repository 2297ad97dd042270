"""Positions: fixed sines, where learned tables start from, rotary angles."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from mmjax.core import axes, errors
from mmjax.models.layers.projection import Embedding

BASE = 10_000.0
# A table that is learned, or fixed; rotations in attention; nothing.
KINDS = ("learned", "sincos", "rotary", "none")


def position_table(
  kind: str,
  grid: Sequence[int],
  embed_dim: int,
  table_init: jax.nn.initializers.Initializer | None = None,
) -> Float[Array, "n d"] | None:
  """What is added to the tokens of a grid; None if nothing is.

  To be called within a compact module, which gets the table "positions" if it
  is learned; by default that starts from sines and cosines.

  Raises:
    UserError: unknown kind.
  """
  if kind not in KINDS:
    raise errors.unknown("kind of positions", kind, KINDS)
  if kind == "learned":
    return Embedding(
      math.prod(grid),
      embed_dim,
      axes.POSITION,
      axes.EMBED,
      table_init=table_init or from_sincos(grid),
      name="positions",
    ).rows()
  if kind == "sincos":
    return jnp.asarray(sincos(grid, embed_dim), jnp.float32)
  return None


def grid_coordinates(grid: Sequence[int]) -> Float[np.ndarray, "n c"]:
  """Where each cell of a grid is, the last axis running fastest."""
  cells = np.indices(tuple(grid)).reshape(len(grid), -1).T
  return cells.astype(np.float32)


def sincos_1d(length: int, dim: int) -> Float[np.ndarray, "n d"]:
  """Sines, then cosines, of positions at frequencies 1 to 1 / 10,000.

  Source: Vaswani et al. 2017, 3.5, with sines and cosines in two halves.

  Raises:
    ValueError: `dim` is odd.
  """
  if dim % 2:
    raise ValueError(f"dim={dim}, expected an even number.")
  rates = BASE ** -(np.arange(dim // 2) / (dim / 2))
  angles = np.arange(length)[:, None] * rates
  return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos(grid: Sequence[int], dim: int) -> Float[np.ndarray, "n d"]:
  """Positions in a grid of any number of axes, the last running fastest.

  Each axis has its own share of the channels; what does not divide stays 0.
  Source: for two axes He et al. 2022 (arXiv:2111.06377), A.1, released code;
  for three Feichtenhofer et al. 2022 (arXiv:2205.09113) give each axis a
  third likewise.

  Raises:
    ValueError: `dim` is less than two channels per axis.
  """
  share = dim // len(grid) // 2 * 2
  if not share:
    raise ValueError(f"dim={dim}, expected at least {2 * len(grid)}.")
  table = np.zeros((*grid, dim))
  for axis, size in enumerate(grid):
    shape = [1] * len(grid) + [share]
    shape[axis] = size
    channels = slice(axis * share, (axis + 1) * share)
    table[..., channels] = sincos_1d(size, share).reshape(shape)
  return table.reshape(-1, dim)


def from_sincos(grid: Sequence[int]) -> jax.nn.initializers.Initializer:
  """Starts a learned table of a grid from sines and cosines.

  As Beyer et al. 2022 (arXiv:2205.01580) found for fixed ones: with them,
  short runs learn faster than from small random numbers.
  """

  def init(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
  ) -> Array:
    del key
    return jnp.asarray(sincos(grid, shape[1]), dtype)

  return init


def rotary_angles(
  coordinates: Float[Array, "*b n c"], head_dim: int, base: float = BASE
) -> Float[Array, "*b n r"]:
  """What pairs of channels are turned by, radians, for `rotate`.

  Each coordinate turns its own share of the pairs, at frequencies 1 to 1 /
  `base`; pairs that are left over do not turn. Source: Su et al. 2021
  (arXiv:2104.09864), eq. 15; with two coordinates as in Heo et al. 2024
  (arXiv:2403.13298), "axial".

  Raises:
    ValueError: `head_dim` is less than two channels per coordinate.
  """
  num_pairs = head_dim // 2 // coordinates.shape[-1]
  if not num_pairs:
    raise ValueError(
      f"head_dim={head_dim}, expected at least {2 * coordinates.shape[-1]}."
    )
  rates = jnp.asarray(base ** -(np.arange(num_pairs) / num_pairs), jnp.float32)
  rates = jnp.expand_dims(rates, tuple(range(coordinates.ndim)))
  angles = coordinates.astype(jnp.float32)[..., None] * rates
  return angles.reshape(*coordinates.shape[:-1], -1)  # *b n (c pairs)


def rotate(
  x: Float[Array, "b n k d"], angles: Float[Array, "#b n r"]
) -> Float[Array, "b n k d"]:
  """Turns pairs of channels by the angle of their position, for all heads.

  Channel i of the first r is paired with channel r + i (as in GPT-NeoX); the
  product of two turned vectors then depends on the difference of positions.
  """
  r = angles.shape[-1]
  cos = jnp.cos(angles)[:, :, None, :].astype(x.dtype)  # b n 1 r
  sin = jnp.sin(angles)[:, :, None, :].astype(x.dtype)
  first, second, rest = x[..., :r], x[..., r : 2 * r], x[..., 2 * r :]
  turned = [first * cos - second * sin, second * cos + first * sin, rest]
  return jnp.concatenate(turned, axis=-1)
