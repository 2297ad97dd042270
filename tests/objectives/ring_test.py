import collections

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import axes
from mmjax.objectives import ring
from mmjax.sharding import mesh as mesh_lib

SIZE = 16


@pytest.fixture
def tree(rng):
  """Features and a mask, as a sequence has them."""
  x = rng.normal(size=(SIZE, 3, 2)).astype(np.float32)
  return {"x": x, "mask": rng.random((SIZE, 3)) < 0.5}


@pytest.mark.parametrize("placed", [False, True])
def test_examples_are_taken_from_wherever_they_are(rng, tree, placed):
  index = rng.integers(0, SIZE, SIZE)
  weights = rng.normal(size=tree["x"].shape).astype(np.float32)

  def loss(x, mask, index, weights):
    taken = ring.take({"x": x, "mask": mask}, index)
    return jnp.sum(taken["x"] * weights), taken

  run = jax.jit(jax.value_and_grad(loss, has_aux=True))
  args = tree["x"], tree["mask"], jnp.asarray(index, jnp.int32), weights
  if placed:
    mesh = mesh_lib.make_mesh(mesh_lib.MeshShape(data=2, fsdp=2, tensor=2))
    split = NamedSharding(mesh, P(mesh_lib.BATCH_AXES))
    args = jax.device_put(args, split)
    rules = ((axes.ACT_BATCH, mesh_lib.BATCH_AXES),)
    with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
      (_, taken), grad = run(*args)
      text = run.lower(*args).compile().as_text()
    assert "collective-permute" in text
    assert "all-gather" not in text
  else:
    (_, taken), grad = run(*args)

  expected = np.zeros_like(grad)
  for i, j in enumerate(index):
    np.testing.assert_array_equal(taken["x"][i], tree["x"][j])
    np.testing.assert_array_equal(taken["mask"][i], tree["mask"][j])
    expected[j] += weights[i]
  np.testing.assert_allclose(grad, expected, rtol=1e-6)


def test_a_batch_that_does_not_divide_is_on_every_device():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshShape())
  rules = ((axes.ACT_BATCH, mesh_lib.BATCH_AXES),)
  x = jnp.arange(6.0)
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    got = jax.jit(ring.take)(x, jnp.asarray([5, 0, 1, 2, 3, 4]))
  np.testing.assert_array_equal(got, np.roll(x, 1))


def _passes(jaxpr, times=1):
  """How often arrays go to the next device, by mesh axis."""
  found = collections.Counter()
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == "ppermute":
      found[eqn.params["axis_name"]] += times
    again = eqn.params.get("length", 1)
    for inner in jax.extend.core.jaxprs_in_params(eqn.params):
      found += _passes(inner, times * again)
  return found


def test_the_first_axis_is_crossed_once_for_each_of_its_members():
  mesh = mesh_lib.make_mesh(mesh_lib.MeshShape(replica=2, fsdp=4))
  rules = ((axes.ACT_BATCH, mesh_lib.BATCH_AXES),)
  x = jnp.arange(16.0)

  def visit(rows, columns, of_rows, of_columns, shared):
    del shared
    return (
      of_rows + jnp.sum(columns),
      of_columns + jnp.sum(rows) * columns,
    )

  def fold(x):
    return ring.fold_pairs(visit, x, x, jnp.zeros_like(x), x, ())

  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    of_rows, of_columns = jax.jit(fold)(x)
    jaxpr = jax.make_jaxpr(fold)(x)
  np.testing.assert_allclose(of_rows, np.full(16, 120.0))
  np.testing.assert_allclose(of_columns, 121.0 * np.arange(16))
  # Two arrays travel, columns and what is known of them.
  passes = _passes(jaxpr.jaxpr)
  assert passes == {("replica",): 2 * 2, ("fsdp",): 2 * 4 * 2}
