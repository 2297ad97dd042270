"""Where tables of positions start from."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

BASE = 10_000.0


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


def sincos_2d(grid: tuple[int, int], dim: int) -> Float[np.ndarray, "n d"]:
  """Positions in a grid, row by row: half the channels say the row.

  Source: He et al. 2022 (arXiv:2111.06377), A.1, released code.

  Raises:
    ValueError: `dim` is no multiple of 4.
  """
  if dim % 4:
    raise ValueError(f"dim={dim}, expected a multiple of 4.")
  rows, columns = (sincos_1d(size, dim // 2) for size in grid)
  return np.concatenate(
    [np.repeat(rows, grid[1], axis=0), np.tile(columns, (grid[0], 1))], axis=1
  )


def from_sincos_2d(grid: tuple[int, int]) -> jax.nn.initializers.Initializer:
  """Starts a learned table of a grid from sines and cosines.

  As Beyer et al. 2022 (arXiv:2205.01580) found for fixed ones: with them,
  short runs learn faster than from small random numbers.
  """

  def init(
    key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32
  ) -> Array:
    del key
    return jnp.asarray(sincos_2d(grid, shape[1]), dtype)

  return init
