"""Positions of tokens in grids of other shapes than the model's own."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from mmjax.models.layers.positions import BASE, position_table


def positions_at(
  kind: str,
  grid: tuple[int, int],
  embed_dim: int,
  coordinates: Int[Array, "b n 2"],
  mask: Bool[Array, "b n"],
) -> Float[Array, "b n d"] | None:
  """What is added to tokens at (row, column); None if nothing is.

  As `position_table`, whose rows these are in a grid of the model's own shape.
  A learned table is sampled at each token's place in the picture, so that
  pictures of any shape share it (NaFlex: Tschannen et al. 2025,
  arXiv:2502.14786, 2.4.2); sines are those of the coordinates.

  Args:
    kind: see `layers.positions.KINDS`.
    grid: rows and columns of the model's own pictures.
    embed_dim: channels.
    coordinates: of each token in the grid of its own picture.
    mask: True where a token is real; the picture is as large as these say.

  Raises:
    UserError: unknown kind.
  """
  if kind == "sincos":
    return sincos_at(coordinates, embed_dim)
  table = position_table(kind, grid, embed_dim)
  if table is None:
    return None
  return sample(table, grid, own_places(coordinates, mask, grid))


def own_places(
  coordinates: Int[Array, "b n 2"],
  mask: Bool[Array, "b n"],
  grid: tuple[int, int],
) -> Float[Array, "b n 2"]:
  """Where cells of pictures' grids lie in another grid, stretched over it.

  With half-pixel centres: (i + 0.5) * size / own size - 0.5.
  """
  real = jnp.where(mask[:, :, None], coordinates, 0)
  sizes = jnp.max(real, axis=1, keepdims=True) + 1  # b 1 2
  scale = jnp.asarray(grid, jnp.float32)[None, None] / sizes
  return (coordinates + 0.5) * scale - 0.5


def sample(
  table: Float[Array, "g d"],
  grid: tuple[int, int],
  places: Float[Array, "b n 2"],
) -> Float[Array, "b n d"]:
  """Reads a table of a grid between its cells, bilinearly.

  Beyond the centres of the outer cells, theirs are the values.
  """
  rows, columns = (
    _hats(places[:, :, axis], size) for axis, size in enumerate(grid)
  )
  # A product with nearly empty weights, 3 % of one layer of ViT-B: gradients
  # of lookups would be scattered additions, which accelerators do slowly.
  weights = rows[:, :, :, None] * columns[:, :, None, :]
  weights = weights.reshape(*places.shape[:2], -1)  # b n (rows columns)
  return jnp.einsum("bng,gd->bnd", weights, table)


def _hats(places, size):
  """Of each cell along an axis, its share of what stands at `places`."""
  places = jnp.clip(places, 0, size - 1)[:, :, None]  # b n 1
  cells = jnp.arange(size, dtype=jnp.float32)[None, None]  # 1 1 size
  return jnp.maximum(0.0, 1.0 - jnp.abs(places - cells))


def sincos_at(
  coordinates: Int[Array, "b n c"], dim: int
) -> Float[Array, "b n d"]:
  """Rows of `positions.sincos`, of a grid that need not be known.

  Raises:
    ValueError: `dim` is less than two channels per axis.
  """
  num_axes = coordinates.shape[-1]
  half = dim // num_axes // 2
  if not half:
    raise ValueError(f"dim={dim}, expected at least {2 * num_axes}.")
  rates = jnp.asarray(BASE ** -(np.arange(half) / half), jnp.float32)
  angles = coordinates[..., None] * rates[None, None, None]  # b n c half
  waves = jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
  waves = waves.reshape(*coordinates.shape[:-1], -1)  # b n (c 2 half)
  spare = dim - waves.shape[-1]
  return jnp.pad(waves, ((0, 0), (0, 0), (0, spare)))
