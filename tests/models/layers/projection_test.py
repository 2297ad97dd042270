import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, precision
from mmjax.models.layers.projection import Embedding, Projection

HEADS_IN = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
HEADS_OUT = (axes.HEADS, axes.HEAD_DIM, axes.EMBED)
KEY = jax.random.key(0)


def _normal(rng, *shape):
  return jnp.asarray(rng.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize(
  ("shape", "features", "names", "spec"),
  [
    ((4,), (5,), (axes.EMBED, axes.MLP), "...a,ax->...x"),
    ((4,), (2, 3), HEADS_IN, "...a,axy->...xy"),
    ((2, 3), (5,), HEADS_OUT, "...ab,abx->...x"),
  ],
)
def test_projection_sums_over_its_input_axes(
  rng, randomized, lead, shape, features, names, spec
):
  module = Projection(features, names, num_in=len(shape))
  x = _normal(rng, *lead, *shape)
  params = randomized(module, x)
  got = module.apply({"params": params}, x)
  expected = np.einsum(spec, np.asarray(x), params["kernel"]) + np.asarray(
    params["bias"]
  )
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_projection_without_bias_has_a_kernel_only(rng):
  module = Projection((5,), (axes.EMBED, axes.MLP), use_bias=False)
  x = _normal(rng, 3, 4)
  params = nn.meta.unbox(module.init(KEY, x))["params"]
  assert set(params) == {"kernel"}
  np.testing.assert_allclose(
    module.apply({"params": params}, x),
    np.asarray(x) @ np.asarray(params["kernel"]),
    rtol=1e-5,
    atol=1e-6,
  )


def test_parameters_of_a_projection_carry_their_axis_names(rng):
  module = Projection((5,), HEADS_OUT, num_in=2)
  boxed = module.init(KEY, _normal(rng, 2, 3))["params"]
  assert boxed["kernel"].names == HEADS_OUT
  assert boxed["bias"].names == (axes.EMBED,)


def test_kernels_start_as_xavier_uniform_over_all_axes():
  module = Projection((4, 16), HEADS_IN)
  params = nn.meta.unbox(module.init(KEY, jnp.ones((1, 64))))["params"]
  bound = np.sqrt(6 / (64 + 4 * 16))
  kernel = np.asarray(params["kernel"])
  assert np.abs(kernel).max() <= bound
  # The standard deviation of a uniform distribution, 4096 draws.
  np.testing.assert_allclose(kernel.std(), bound / np.sqrt(3), rtol=0.05)
  assert not np.any(np.asarray(params["bias"]))


def test_another_key_gives_another_kernel():
  module = Projection((5,), (axes.EMBED, axes.MLP))
  kernels = [
    nn.meta.unbox(module.init(key, jnp.ones((1, 4))))["params"]["kernel"]
    for key in (KEY, KEY, jax.random.key(1))
  ]
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert np.any(np.asarray(kernels[0]) != np.asarray(kernels[2]))


@pytest.mark.parametrize(
  ("name", "result", "tolerance"),
  # bfloat16 has 8 bits of mantissa: results of its own are that exact.
  [("bfloat16", jnp.bfloat16, 2**-7), ("bfloat16_products", jnp.float32, 1e-5)],
)
def test_precision_rounds_operands_and_keeps_parameters(
  rng, randomized, name, result, tolerance
):
  module = Projection(
    (5,), (axes.EMBED, axes.MLP), precision=precision.POLICIES[name]
  )
  x = _normal(rng, 3, 4)
  params = randomized(module, x)
  assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
  got = module.apply({"params": params}, x)
  assert got.dtype == result
  rounded = [
    np.asarray(a).astype(ml_dtypes.bfloat16).astype(np.float64)
    for a in (x, params["kernel"])
  ]
  np.testing.assert_allclose(
    np.asarray(got, np.float64),
    rounded[0] @ rounded[1] + np.asarray(params["bias"]),
    rtol=tolerance,
    atol=tolerance,
  )


def test_embedding_looks_rows_up(rng):
  module = Embedding(6, 4, axes.VOCAB, axes.EMBED)
  ids = jnp.asarray([[0, 5], [3, 3]])
  boxed = module.init(KEY, ids)
  assert boxed["params"]["table"].names == (axes.VOCAB, axes.EMBED)
  variables = nn.meta.unbox(boxed)
  table = np.asarray(variables["params"]["table"])
  got = module.apply(variables, ids)
  for index in np.ndindex(2, 2):
    np.testing.assert_array_equal(got[index], table[ids[index]])
  np.testing.assert_array_equal(module.apply(variables, method="rows"), table)


def test_embedding_starts_from_small_normal_numbers():
  module = Embedding(64, 64, axes.VOCAB, axes.EMBED)
  table = nn.meta.unbox(module.init(KEY, jnp.zeros((1,), int)))["params"]
  # 4096 draws.
  np.testing.assert_allclose(np.asarray(table["table"]).std(), 0.02, rtol=0.05)
