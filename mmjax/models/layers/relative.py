"""Attention biases that are learned for each distance in a grid."""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from mmjax.core import axes
from mmjax.models.layers.placement import place

# Pairs without a distance: special token and content, the other way, two
# special tokens.
SPECIAL = 3


@struct.dataclass
class Relative:
  """Which row of a table of biases stands for each pair of tokens."""

  rows: Int[Array, "#b n n"]  # Of query and key.
  num_rows: int = struct.field(pytree_node=False)


def relative(
  coordinates: Float[Array, "#b m c"], num_prefix: int, grid: Sequence[int]
) -> Relative:
  """Finds the row of each pair of tokens, special ones first.

  One row for each distance, query minus key, that two cells of the grid can
  have, the last axis running fastest; after these the rows of `SPECIAL`.
  Source: Bao et al. 2022 (arXiv:2106.08254), released code.

  Args:
    coordinates: of content tokens in the grid.
    num_prefix: special tokens before these.
    grid: sizes of its axes.
  """
  cells = coordinates.astype(jnp.int32)
  rows = jnp.zeros((1, 1, 1), jnp.int32)
  for axis, size in enumerate(grid):
    at = cells[:, :, axis]
    distance = at[:, :, None] - at[:, None, :]  # b m m
    rows = rows * (2 * size - 1) + distance + (size - 1)
  first = math.prod(2 * size - 1 for size in grid)
  prefix = (num_prefix, 0)
  rows = jnp.pad(rows, ((0, 0), prefix, prefix))  # b n n
  special = jnp.arange(rows.shape[1]) < num_prefix
  query, key = special[None, :, None], special[None, None, :]
  rows = jnp.where(query, first, rows)
  rows = jnp.where(key, jnp.where(query, first + 2, first + 1), rows)
  return Relative(rows, first + SPECIAL)


class RelativeBias(nn.Module):
  """What is added to the attention logits of each pair, for each head.

  Starts at zero: as if there were none.
  """

  num_heads: int

  @nn.compact
  def __call__(self, pairs: Relative) -> Float[Array, "#b k n n"]:
    table = self.param(
      "table",
      nn.with_logical_partitioning(
        nn.initializers.zeros_init(), (axes.POSITION, axes.HEADS)
      ),
      (pairs.num_rows, self.num_heads),
      jnp.float32,
    )
    bias = jnp.take(table, pairs.rows, axis=0)  # b n n k
    bias = jnp.moveaxis(bias, -1, 1)  # b k n n
    batch = axes.ACT_BATCH if len(bias) > 1 else None
    return place(bias, (batch, axes.ACT_HEADS, None, None))
