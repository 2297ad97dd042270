"""All pairs of a batch, a tile at a time: never the whole matrix anywhere.

Each device keeps its rows, and the columns travel from device to device, once
round the ring. Of a mesh of several axes each has a ring of its own, within
those before it: the first axis, which may join slices by a slow network, is
crossed once for each of its members. The devices are those that a batch is
split over where this is traced (`train.predict.placement`); without a mesh
there is one.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Int

from mmjax.core import axes

Tree = Any  # Of arrays whose leading axis is the example.
# (rows, columns, of_rows, of_columns, shared) -> (of_rows, of_columns).
Visit = Callable[[Tree, Tree, Tree, Tree, Any], tuple[Tree, Tree]]

TILE = 1 << 21  # Pairs computed at a time: 8 MiB for a number each.


def fold_pairs(
  visit: Visit,
  rows: Tree,
  columns: Tree,
  of_rows: Tree,
  of_columns: Tree,
  shared: Any,
  *,
  chunk: int = 0,
) -> tuple[Tree, Tree]:
  """Folds `visit` over tiles that together hold each pair once.

  The order of the columns depends on the device, so what is folded must not.
  Not to be differentiated: it would keep every tile.

  Args:
    visit: adds a tile of rows and columns to what is known of them. Rows of
      zeros may be among those it gets; what it says of them is dropped.
    rows: what to know of each row.
    columns: what to know of each column, as many as rows.
    of_rows: where the fold over each row starts.
    of_columns: where the fold over each column starts.
    shared: passed on as it is, the same for all.
    chunk: rows of a tile; 0 = as many as make `TILE` pairs.
  """
  names = _batch_axes(_size(rows))
  if not names:
    return _tiles(visit, rows, columns, of_rows, of_columns, shared, chunk)

  def local(rows, columns, of_rows, of_columns, shared):
    def meet(travelling, of_rows):
      columns, of_columns = travelling
      of_rows, of_columns = _tiles(
        visit, rows, columns, of_rows, of_columns, shared, chunk
      )
      return (columns, of_columns), of_rows

    (_, of_columns), of_rows = _go_round(
      meet, (columns, of_columns), of_rows, names
    )
    return of_rows, of_columns

  split = P(names)
  return jax.shard_map(
    local, in_specs=(split, split, split, split, P()), out_specs=split
  )(rows, columns, of_rows, of_columns, shared)


def take(tree: Tree, index: Int[Array, " b"]) -> Tree:
  """Takes examples of the whole batch, wherever they are.

  A device never holds more than its own share and one that travels; every
  share passes every device. Differentiable.
  """
  names = _batch_axes(_size(index))
  if not names:
    return jax.tree.map(lambda x: x[index], tree)

  def local(tree, index, place):
    def meet(travelling, picked):
      share, place = travelling
      at = index - place[0]
      here = (at >= 0) & (at < _size(share))
      at = jnp.where(here, at, 0)
      picked = jax.tree.map(
        lambda x, p: jnp.where(_like(here, p), x[at], p), share, picked
      )
      return travelling, picked

    # Of the same shape, and all of it replaced.
    start = jax.tree.map(lambda x: x[jnp.zeros_like(index)], tree)
    return _go_round(meet, (tree, place), start, names)[1]

  split = P(names)
  place = jnp.arange(_size(index), dtype=index.dtype)
  return jax.shard_map(local, in_specs=(split, split, split), out_specs=split)(
    tree, index, place
  )


def _go_round(meet, travelling, staying, names):
  """Each share that travels meets each that stays, and comes home.

  `meet(travelling, staying)` returns both anew.
  """
  if not names:
    return meet(travelling, staying)
  first, rest = names[0], names[1:]

  def turn(carry, _):
    travelling, staying = _go_round(meet, carry[0], carry[1], rest)
    return (_pass_on(travelling, first), staying), None

  return jax.lax.scan(turn, (travelling, staying), length=_ways((first,)))[0]


def _tiles(visit, rows, columns, of_rows, of_columns, shared, chunk):
  """All pairs of the rows and columns that a device has at the moment."""
  size = _size(rows)
  chunk = min(chunk or max(1, TILE // _size(columns)), size)
  if chunk == size:
    return visit(rows, columns, of_rows, of_columns, shared)
  count = -(-size // chunk)

  def split(x):
    padding = ((0, count * chunk - size), *[(0, 0)] * (x.ndim - 1))
    return jnp.pad(x, padding).reshape(count, chunk, *x.shape[1:])

  def step(of_columns, tile):
    rows, of_rows = tile
    of_rows, of_columns = visit(rows, columns, of_rows, of_columns, shared)
    return of_columns, of_rows

  of_columns, of_rows = jax.lax.scan(
    step, of_columns, jax.tree.map(split, (rows, of_rows))
  )
  of_rows = jax.tree.map(
    lambda x: x.reshape(count * chunk, *x.shape[2:])[:size], of_rows
  )
  return of_rows, of_columns


def _batch_axes(size):
  """Mesh axes over which so many examples are split."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return ()
  placed = nn.logical_to_mesh_axes((axes.ACT_BATCH,))
  names = placed[0] if placed else None
  names = (names,) if isinstance(names, str) else names or ()
  names = tuple(name for name in names if mesh.shape[name] > 1)
  # A batch that does not divide is on every device as a whole.
  return names if size % _ways(names) == 0 else ()


def _ways(names):
  mesh = jax.sharding.get_abstract_mesh()
  return math.prod(mesh.shape[name] for name in names)


def _pass_on(tree, name):
  """To the next device along a mesh axis."""
  ways = _ways((name,))
  ring = [(i, (i + 1) % ways) for i in range(ways)]
  return jax.tree.map(lambda x: jax.lax.ppermute(x, name, ring), tree)


def _size(tree):
  return jax.tree.leaves(tree)[0].shape[0]


def _like(mask, x):
  return jnp.expand_dims(mask, tuple(range(1, x.ndim)))
