import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import axes
from mmjax.models.layers.placement import gather, place
from mmjax.sharding import rules
from mmjax.sharding.mesh import MeshShape, make_mesh

NAMES = (axes.ACT_BATCH, axes.ACT_SEQ, axes.ACT_EMBED)


def run(x, shape, names=NAMES):
  mesh = make_mesh(MeshShape(**shape), jax.devices()[:4])
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.rules("fsdp_tensor")):
    return jax.jit(lambda x: place(x + 1, names))(x)


def test_an_activation_is_split_as_the_rules_say():
  x = np.zeros((4, 6, 8), np.float32)
  y = run(x, dict(data=1, fsdp=2, sequence=2))
  assert y.sharding.shard_shape(y.shape) == (2, 3, 8)
  np.testing.assert_array_equal(y, x + 1)


def test_what_does_not_divide_stays_whole_and_is_said():
  x = np.zeros((4, 7, 8), np.float32)
  with pytest.warns(UserWarning, match="7 along 'act_seq'.*over 2 devices"):
    y = run(x, dict(data=1, fsdp=2, sequence=2))
  assert y.sharding.shard_shape(y.shape) == (2, 7, 8)


def test_one_token_stays_whole_without_a_word():
  y = run(np.zeros((4, 1, 8), np.float32), dict(data=2, sequence=2))
  assert y.sharding.shard_shape(y.shape) == (2, 1, 8)


def test_without_a_mesh_or_rules_nothing_is_done():
  x = jnp.zeros((2, 3, 4))
  assert place(x, NAMES) is x
  with nn.logical_axis_rules(rules.rules("fsdp")):
    assert place(x, NAMES) is x


def _gathered(kernel, names, shape):
  """A device's part before, the kernel as it is read, and a gradient."""
  mesh = make_mesh(MeshShape(**shape), jax.devices()[:4])
  table = rules.rules("fsdp_tensor")
  over = P(*(dict(table).get(name) for name in names))
  kernel = jax.device_put(kernel, NamedSharding(mesh, over))
  with jax.set_mesh(mesh), nn.logical_axis_rules(table):
    made = jax.jit(lambda k: gather(k, names) * 1.0)(kernel)
    grad = jax.jit(jax.grad(lambda k: jnp.sum(gather(k, names) ** 2)))(kernel)
  return kernel.sharding.shard_shape(kernel.shape), made, grad


def test_a_kernel_is_read_whole_along_the_axes_of_the_batch():
  kernel = np.arange(8.0 * 6).reshape(8, 6).astype(np.float32)

  before, made, grad = _gathered(
    kernel, (axes.EMBED, axes.MLP), dict(data=1, fsdp=2, tensor=2)
  )

  assert before == (4, 3)
  assert made.sharding.shard_shape(made.shape) == (8, 3)  # `tensor` stays.
  np.testing.assert_array_equal(made, kernel)
  assert grad.sharding.shard_shape(grad.shape) == before
  np.testing.assert_array_equal(grad, 2 * kernel)


def test_what_is_not_split_over_the_batch_is_left_alone():
  kernel = jnp.zeros((8, 6))
  assert gather(kernel, (axes.EMBED, axes.MLP)) is kernel
  mesh = make_mesh(MeshShape(data=2, tensor=2), jax.devices()[:4])
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.rules("fsdp_tensor")):
    assert gather(kernel, (axes.HEAD_DIM, axes.MLP)) is kernel
