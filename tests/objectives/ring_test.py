import jax
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
