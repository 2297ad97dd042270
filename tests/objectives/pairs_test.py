"""Losses over all pairs: by hand, in tiles and round a ring of devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import axes
from mmjax.objectives import pairs
from mmjax.sharding import mesh as mesh_lib

SCALE, BIAS = 5.0, -2.0
# Shape of the mesh, None = no mesh.
MESHES = {
  "none": None,
  "two": dict(data=2),
  "eight": dict(data=8),
  "all": dict(replica=2, data=1, fsdp=2, tensor=2),
}


def _place(name):
  """A mesh and the rule for examples, as `predict.placement` sets them."""
  if MESHES[name] is None:
    return None
  count = 2 if name == "two" else 8
  shape = mesh_lib.MeshShape(**MESHES[name])
  return mesh_lib.make_mesh(shape, jax.devices()[:count])


def _run(fn, name, *args):
  """Runs `fn` jitted, its batches split over the devices of a mesh."""
  mesh = _place(name)
  if mesh is None:
    return jax.jit(fn)(*args)
  split = NamedSharding(mesh, P(mesh_lib.BATCH_AXES))
  whole = NamedSharding(mesh, P())
  args = [
    jax.device_put(x, split if np.ndim(x) and len(x) > 2 else whole)
    for x in args
  ]
  rules = ((axes.ACT_BATCH, mesh_lib.BATCH_AXES),)
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    return jax.jit(fn)(*args)


def _unit(rng, *shape):
  x = rng.normal(size=shape)
  x /= np.linalg.norm(x, axis=-1, keepdims=True)
  return jnp.asarray(x, jnp.float32)


def _example(rng, size):
  mask = rng.random(size) < 0.7
  mask[:2] = True, False
  numbers = jnp.float32(SCALE), jnp.float32(BIAS)
  return _unit(rng, size, 4), _unit(rng, size, 4), *numbers, jnp.asarray(mask)


@pytest.fixture
def example(rng):
  return _example(rng, 16)


def _info_nce(a, b, scale, bias, mask, chunk=0):
  del bias
  return pairs.info_nce(a, b, scale, mask, chunk=chunk)


def _sigmoid(a, b, scale, bias, mask, chunk=0):
  return pairs.sigmoid(a, b, scale, bias, mask, chunk=chunk)


LOSSES = {"info_nce": _info_nce, "sigmoid": _sigmoid}


def plain(name, a, b, scale, bias, mask):
  """The textbook, on the whole matrix: left to autodiff."""
  a, b = (jnp.where(mask[:, None], x, 0.0) for x in (a, b))
  logits = scale * jnp.dot(a, b.T, precision="highest")
  counts = mask[:, None] & mask[None]
  if name == "info_nce":
    logits = jnp.where(counts, logits, -jnp.inf)
    logits = jnp.where(mask[:, None] | mask[None], logits, 0.0)
    both = jax.nn.log_softmax(logits, 1) + jax.nn.log_softmax(logits, 0)
    values = -0.5 * jnp.diagonal(both)
  else:
    sign = 2 * jnp.eye(len(a)) - 1
    judged = jax.nn.log_sigmoid(sign * (logits + bias))
    values = -jnp.sum(jnp.where(counts, judged, 0.0), axis=1)
  return jnp.sum(jnp.where(mask, values, 0.0))


def _sigmoid_by_hand(a, b, mask):
  """Of each pair -ln of the probability of what it is, in float64."""
  a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
  rows = np.flatnonzero(mask)
  total = 0.0
  for i in rows:
    for j in rows:
      z = SCALE * a[i] @ b[j] + BIAS
      total += np.log1p(np.exp(-z if i == j else z))
  return total


@pytest.mark.parametrize("chunk", [0, 5])  # 5 does not divide 16.
def test_values_are_those_by_hand(example, by_hand, chunk):
  a, b, scale, bias, mask = example
  (got, accuracy), (got_sigmoid, _) = jax.jit(
    lambda *args: [fn(*args, chunk) for fn in LOSSES.values()]
  )(*example)
  expected = by_hand.info_nce(a, b, SCALE, mask)
  np.testing.assert_allclose(got.total, expected, rtol=1e-5)
  assert got.weight == accuracy.weight == mask.sum()

  np.testing.assert_allclose(
    got_sigmoid.total, _sigmoid_by_hand(a, b, mask), rtol=1e-5
  )

  rows = np.flatnonzero(mask)
  products = np.asarray(a)[rows] @ np.asarray(b)[rows].T
  assert accuracy.total == np.sum(products.argmax(1) == np.arange(len(rows)))


@pytest.fixture(scope="module")
def textbook():
  """A larger batch, what is expected of it, and the share of best matches."""
  example = _example(np.random.default_rng(1), 24)
  expected = jax.jit(
    lambda *args: {
      name: jax.value_and_grad(
        functools.partial(plain, name), argnums=(0, 1, 2, 3)
      )(*args)
      for name in LOSSES
    }
  )(*example)
  rows = np.flatnonzero(example[-1])
  products = np.asarray(example[0])[rows] @ np.asarray(example[1])[rows].T
  accuracy = np.mean(products.argmax(1) == np.arange(len(rows)))
  return example, expected, accuracy


@pytest.mark.parametrize("mesh", ["none", "two", "all"])
def test_values_and_gradients_are_those_of_the_whole_matrix(textbook, mesh):
  example, expected, expected_accuracy = textbook

  def chunked(loss, *args):
    loss, accuracy = loss(*args, 2)
    return loss.mean, accuracy.mean

  def run(*args):
    return {
      name: jax.value_and_grad(
        functools.partial(chunked, loss), argnums=(0, 1, 2, 3), has_aux=True
      )(*args)
      for name, loss in LOSSES.items()
    }

  got = _run(run, mesh, *example)

  count = example[-1].sum()
  for name, (value, grads) in expected.items():
    (got_value, accuracy), got_grads = got[name]
    np.testing.assert_allclose(got_value, value / count, rtol=1e-5)
    for x, y in zip(got_grads, grads, strict=True):
      np.testing.assert_allclose(x, y / count, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(accuracy, expected_accuracy, rtol=1e-6)


def test_the_whole_matrix_is_never_on_a_device():
  size, dim = 512, 8
  args = [
    jnp.zeros((size, dim)), jnp.zeros((size, dim)), jnp.float32(1.0),
    jnp.float32(0.0), jnp.ones(size, bool),
  ]  # fmt: skip

  def loss(*args):
    return _info_nce(*args, chunk=8)[0].mean

  text = str(jax.make_jaxpr(jax.grad(loss))(*args))
  assert f"[8,{size}]" in text
  assert f"[{size},{size}]" not in text


def _temporary_bytes(loss, mesh, size, dim):
  """Of a device, for the value and the gradient; nothing is run."""
  split = NamedSharding(mesh, P(mesh_lib.BATCH_AXES))
  whole = NamedSharding(mesh, P())
  of = jax.ShapeDtypeStruct
  args = [
    of((size, dim), jnp.float32, sharding=split),
    of((size, dim), jnp.float32, sharding=split),
    of((), jnp.float32, sharding=whole),
    of((), jnp.float32, sharding=whole),
    of((size,), bool, sharding=split),
  ]
  rules = ((axes.ACT_BATCH, mesh_lib.BATCH_AXES),)
  run = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1, 2, 3)),
    out_shardings=(whole, (split, split, whole, whole)),
  )
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    compiled = run.lower(*args).compile()
  return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.slow
@pytest.mark.parametrize("name", LOSSES)
def test_memory_at_a_global_batch_of_32768_is_an_eighth(name):
  mesh = _place("eight")

  def chunked(*args):
    return LOSSES[name](*args)[0].total

  got = _temporary_bytes(chunked, mesh, 32768, 512)
  whole = _temporary_bytes(functools.partial(plain, name), mesh, 32768, 512)
  print(name, got, whole)
  assert got * 8 <= whole


@pytest.mark.parametrize("name", LOSSES)
def test_filler_reaches_neither_the_loss_nor_its_gradient(example, name):
  a, b, scale, bias, mask = example

  def loss(a, b, scale, bias, mask):
    return LOSSES[name](a, b, scale, bias, mask, 3)[0].mean

  run = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3)))
  bad = (jnp.where(mask[:, None], x, jnp.nan) for x in (a, b))
  pairs_of_leaves = zip(
    jax.tree.leaves(run(*bad, scale, bias, mask)),
    jax.tree.leaves(run(*example)),
    strict=True,
  )
  for got, expected in pairs_of_leaves:
    np.testing.assert_array_equal(got, expected)

  value, grads = run(a, b, scale, bias, jnp.zeros(16, bool))
  assert value == 0
  for grad in grads:
    np.testing.assert_array_equal(grad, 0.0)


def test_info_nce_does_not_tell_its_sides_apart(example):
  a, b, *rest = example
  loss = jax.jit(lambda *args: _info_nce(*args)[0].total)
  np.testing.assert_allclose(loss(a, b, *rest), loss(b, a, *rest), rtol=1e-5)


def test_equal_rows_are_chance():
  ones, mask = jnp.full((8, 4), 0.5), jnp.ones(8, bool)
  run = functools.partial(pairs.info_nce, chunk=3)
  loss, accuracy = _run(run, "two", ones, ones, jnp.float32(9.0), mask)
  np.testing.assert_allclose(loss.mean, np.log(8), rtol=1e-5)
  # The first is the best, whatever a device sees first.
  np.testing.assert_allclose(accuracy.mean, 1 / 8)


def test_bfloat16_rows_are_compared_in_float32(example, by_hand):
  a, b, _, _, mask = example
  a, b = a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)
  # At this scale, similarities of 8 bits would be off by 0.2.
  got, _ = jax.jit(pairs.info_nce)(a, b, jnp.float32(100.0), mask)
  assert got.total.dtype == jnp.float32
  expected = by_hand.info_nce(a, b, 100.0, mask)
  np.testing.assert_allclose(got.total, expected, rtol=1e-5)


IDS = np.arange(24, dtype=np.uint32)


def _draw(a, b, scale, mask, ids_a, ids_b, seeds, chunk=3):
  def once(seed):
    return pairs.draw(
      a, b, scale, mask, (ids_a, ids_b), jax.random.key(seed), chunk=chunk
    )

  return jax.lax.map(once, seeds)


def test_draws_are_softmax_of_the_similarities_to_others(rng):
  a, b = _unit(rng, 5, 3), _unit(rng, 5, 3)
  mask = jnp.asarray([True, True, True, False, True])
  ids_b = jnp.asarray([0, 1, 1, 3, 4], jnp.uint32)  # Two equal texts.
  num = 4000
  for_a, for_b = jax.jit(_draw)(
    a, b, jnp.float32(2.0), mask, jnp.arange(5, dtype=jnp.uint32), ids_b,
    jnp.arange(num),
  )  # fmt: skip

  logits = 2.0 * np.asarray(a) @ np.asarray(b).T
  allowed = np.asarray(mask)[:, None] & np.asarray(mask)[None]
  allowed &= ~np.eye(5, dtype=bool)
  allowed[1, 2] = allowed[2, 1] = False
  weights = np.where(allowed, np.exp(logits), 0.0)
  np.testing.assert_array_equal(for_a.found[0], mask)
  for drawn, w in ((for_a, weights), (for_b, weights.T)):
    for i in np.flatnonzero(mask):
      got = np.bincount(drawn.partner[:, i], minlength=5) / num
      expected = w[i] / w[i].sum()
      # Four standard deviations of a share.
      assert np.all(np.abs(got - expected) < 4 * 0.5 / np.sqrt(num)), i
      assert np.all(got[expected == 0] == 0)
  # Images and texts are drawn apart, and each row for itself.
  assert np.any(for_a.partner != for_b.partner)


def test_draws_are_the_same_on_any_devices_and_in_any_order(rng):
  a, b = _unit(rng, 24, 3), _unit(rng, 24, 3)
  args = (a, b, jnp.float32(2.0), jnp.ones(24, bool), IDS, IDS)
  seeds = jnp.arange(2)
  draw = jax.jit(_draw)
  expected = draw(*args, seeds)

  got = _run(_draw, "all", *args, seeds)
  for x, y in zip(got, expected, strict=True):
    np.testing.assert_array_equal(x.partner, y.partner)

  order = rng.permutation(24)
  moved = [x[order] if np.ndim(x) else x for x in args]
  got, _ = draw(*moved, seeds)
  np.testing.assert_array_equal(
    order[np.asarray(got.partner)], np.asarray(expected[0].partner)[:, order]
  )

  # Without another example there is nothing to draw.
  alone = jnp.zeros(24, bool).at[5].set(True)
  for drawn in draw(*args[:3], alone, IDS, IDS, seeds):
    assert not np.any(drawn.found)
    np.testing.assert_array_equal(drawn.partner[0], np.arange(24))
