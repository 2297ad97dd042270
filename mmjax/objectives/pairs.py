"""Losses over all pairs of a batch, and draws of pairs, in tiles.

Memory is that of the features, not of the B x B similarities: what of them a
backward pass needs, two numbers per row, is kept and the rest computed again
(as in Dao et al. 2022, arXiv:2205.14135, for attention). Products in float32:
at a scale of 100, similarities of fewer bits are off by as much as they
differ.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt

from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses, ring

NOTHING = -1e30  # Logit of a pair that does not count.


class Kind(NamedTuple):
  """What a loss sums up of each row and each column of the logits."""

  start: float
  # (logits, so far of rows, so far of columns) -> both with these logits.
  update: Callable[..., tuple[Array, Array]]
  # Of the sums by the logits: (logits, rows', columns') -> like logits. The
  # two are trees: the sum, and the gradient of the loss by it.
  gradient: Callable[..., Array]


def _softmax_gradient(logits, rows, columns):
  of_rows = rows["g"][:, None] * jnp.exp(logits - rows["sum"][:, None])
  of_columns = columns["g"][None] * jnp.exp(logits - columns["sum"][None])
  return of_rows + of_columns


SOFTMAX = Kind(
  NOTHING,
  lambda logits, rows, columns: (
    jnp.logaddexp(rows, jax.nn.logsumexp(logits, axis=1)),
    jnp.logaddexp(columns, jax.nn.logsumexp(logits, axis=0)),
  ),
  _softmax_gradient,
)
SIGMOID = Kind(
  0.0,
  lambda logits, rows, columns: (
    rows + jnp.sum(jax.nn.softplus(logits), axis=1),
    columns + jnp.sum(jax.nn.softplus(logits), axis=0),
  ),
  lambda logits, rows, columns: (
    (rows["g"][:, None] + columns["g"][None]) * jax.nn.sigmoid(logits)
  ),
)


def info_nce(
  a: Float[Array, "b s"],
  b: Float[Array, "b s"],
  scale: Float[Array, ""],
  mask: Bool[Array, " b"],
  *,
  chunk: int = 0,
) -> tuple[LossTerm, LossTerm]:
  """Symmetric InfoNCE over all pairs of the global batch, and accuracy.

  Row i of `a` belongs to row i of `b`; every other counted row is a
  negative. Source: van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, in
  both directions as in Radford et al. 2021 (arXiv:2103.00020), figure 3.
  `chunk`: see `ring.fold_pairs`.
  """
  a, b = _only_counted(a, b, mask)
  bias = jnp.zeros((), jnp.float32)
  rows, columns, best = _sums(a, b, scale, bias, mask, SOFTMAX, chunk)
  own = scale * jnp.sum(a * b, axis=1)
  loss = losses.masked_sum(0.5 * (rows + columns) - own, mask)
  return loss, _accuracy(best, mask)


def sigmoid(
  a: Float[Array, "b s"],
  b: Float[Array, "b s"],
  scale: Float[Array, ""],
  bias: Float[Array, ""],
  mask: Bool[Array, " b"],
  *,
  chunk: int = 0,
) -> tuple[LossTerm, LossTerm]:
  """Each pair judged for itself, and accuracy.

  Of each example the sum over all B pairs of its row. Source: SigLIP (Zhai et
  al. 2023, arXiv:2303.15343), eq. in 3.2. `chunk`: see `ring.fold_pairs`.
  """
  a, b = _only_counted(a, b, mask)
  rows, _, best = _sums(a, b, scale, bias, mask, SIGMOID, chunk)
  # softplus(-z) = softplus(z) - z turns a pair's own negative into a positive.
  own = scale * jnp.sum(a * b, axis=1) + bias
  return losses.masked_sum(rows - own, mask), _accuracy(best, mask)


class Drawn(NamedTuple):
  """An example for each example, and whether there is one."""

  partner: Int[Array, " b"]  # Its own place where there is none.
  found: Bool[Array, " b"]


def draw(
  a: Float[Array, "b s"],
  b: Float[Array, "b s"],
  scale: Float[Array, ""],
  mask: Bool[Array, " b"],
  ids: tuple[UInt[Array, " b"], UInt[Array, " b"]],
  key: jax.Array,
  *,
  chunk: int = 0,
) -> tuple[Drawn, Drawn]:
  """Draws a `b` that is not its own for each `a`, and an `a` for each `b`.

  With probability softmax(scale * a.b) over what may be drawn: what counts
  and has another id on both sides. The noise of a pair (the largest of logits
  plus Gumbel noise is a draw) depends on the key and the ids alone, so the
  same is drawn in any order and on any number of devices.
  """
  a, b = _only_counted(a, b, mask)
  places = jnp.arange(mask.shape[0], dtype=jnp.int32)
  # Of the example as a whole: two that share a text get noise of their own.
  whole = ids[0] * jnp.uint32(2654435761) + ids[1]
  known = {"mask": mask, "place": places, "ids": ids, "id": whole}
  nobody = {"value": jnp.full(mask.shape, NOTHING), "place": places}
  found = ring.fold_pairs(
    _visit_draw,
    {"x": a, **known},
    {"x": b, **known},
    nobody,
    nobody,
    {"scale": scale, "key": key},
    chunk=chunk,
  )
  for_a, for_b = (_drawn(best, places) for best in found)
  return for_a, for_b


def _drawn(best, places):
  found = best["value"] > NOTHING
  return Drawn(jnp.where(found, best["place"], places), found)


def _visit_draw(rows, columns, of_rows, of_columns, shared):
  dots, counts = _similarities(rows, columns)
  for mine, theirs in zip(rows["ids"], columns["ids"], strict=True):
    counts = counts & (mine[:, None] != theirs[None])

  def noise(row, column):  # Of one pair, in either direction.
    key = jax.random.fold_in(jax.random.fold_in(shared["key"], row), column)
    return jax.random.gumbel(key, (2,))

  across = jax.vmap(noise, in_axes=(None, 0))
  drawn = jax.vmap(across, in_axes=(0, None))(rows["id"], columns["id"])
  logits = shared["scale"] * dots[:, :, None] + drawn  # i j 2
  logits = jnp.where(counts[:, :, None], logits, NOTHING)
  return (
    _best(logits[:, :, 0], columns["place"], of_rows),
    _best(logits[:, :, 1].T, rows["place"], of_columns),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _sums(a, b, scale, bias, mask, kind, chunk):
  """(sum of each row, of each column, best column of each row)."""
  return _sums_forward(a, b, scale, bias, mask, kind, chunk)[0]


def _sums_forward(a, b, scale, bias, mask, kind, chunk):
  places = jnp.arange(mask.shape[0], dtype=jnp.int32)
  known = {"mask": mask, "place": places}
  start = jnp.full(mask.shape, kind.start, jnp.float32)
  best = {"value": jnp.full(mask.shape, NOTHING), "place": places}

  def visit(rows, columns, of_rows, of_columns, shared):
    dots, counts = _similarities(rows, columns)
    logits = shared["scale"] * dots + shared["bias"]
    logits = jnp.where(counts, logits, NOTHING)
    sums = kind.update(logits, of_rows["sum"], of_columns)
    best = _best(logits, columns["place"], of_rows["best"])
    return {"sum": sums[0], "best": best}, sums[1]

  of_rows, of_columns = ring.fold_pairs(
    visit,
    {"x": a, **known},
    {"x": b, **known},
    {"sum": start, "best": best},
    start,
    {"scale": scale, "bias": bias},
    chunk=chunk,
  )
  sums = of_rows["sum"], of_columns
  return (*sums, of_rows["best"]["place"]), (a, b, scale, bias, mask, sums)


def _sums_backward(kind, chunk, saved, gradients):
  a, b, scale, bias, mask, (rows, columns) = saved

  def visit(rows, columns, of_rows, of_columns, shared):
    dots, counts = _similarities(rows, columns)
    logits = shared["scale"] * dots + shared["bias"]
    logits = jnp.where(counts, logits, NOTHING)
    g = jnp.where(counts, kind.gradient(logits, rows, columns), 0.0)
    of_rows = {
      "x": of_rows["x"] + shared["scale"] * _product("ij,js->is", g, columns),
      "bias": of_rows["bias"] + jnp.sum(g, axis=1),
      "scale": of_rows["scale"] + jnp.sum(g * dots, axis=1),
    }
    of_columns = of_columns + shared["scale"] * _product("ij,is->js", g, rows)
    return of_rows, of_columns

  zeros = jnp.zeros(mask.shape, jnp.float32)
  of_rows, of_columns = ring.fold_pairs(
    visit,
    {"x": a, "mask": mask, "sum": rows, "g": gradients[0]},
    {"x": b, "mask": mask, "sum": columns, "g": gradients[1]},
    {"x": jnp.zeros_like(a), "bias": zeros, "scale": zeros},
    jnp.zeros_like(b),
    {"scale": scale, "bias": bias},
    chunk=chunk,
  )
  by_scale, by_bias = (jnp.sum(of_rows[name]) for name in ("scale", "bias"))
  return of_rows["x"], of_columns, by_scale, by_bias, None


_sums.defvjp(_sums_forward, _sums_backward)


def _only_counted(a, b, mask):
  """Zeros elsewhere: in a product, a NaN would reach all rows' gradients."""
  return (jnp.where(mask[:, None], x.astype(jnp.float32), 0.0) for x in (a, b))


def _similarities(rows, columns):
  """Products of a tile, and which of them count."""
  dots = _product("is,js->ij", rows["x"], columns)
  return dots, rows["mask"][:, None] & columns["mask"][None]


def _product(equation, x, tile):
  return jnp.einsum(equation, x, tile["x"], precision=jax.lax.Precision.HIGHEST)


def _best(values, places, so_far):
  """Highest value of each row and where it is; the first of equals."""
  value = jnp.max(values, axis=1)
  last = jnp.iinfo(jnp.int32).max
  here = jnp.where(values == value[:, None], places[None], last)
  place = jnp.min(here, axis=1)
  better = (value > so_far["value"]) | (
    (value == so_far["value"]) & (place < so_far["place"])
  )
  return {
    "value": jnp.where(better, value, so_far["value"]),
    "place": jnp.where(better, place, so_far["place"]),
  }


def _accuracy(best, mask):
  places = jnp.arange(mask.shape[0], dtype=best.dtype)
  return losses.masked_sum((best == places).astype(jnp.float32), mask)
