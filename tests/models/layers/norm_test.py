import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, precision
from mmjax.models.layers.norm import layer_norm, unit_length

KEY = jax.random.key(0)


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_layer_norm_is_the_formula(rng, randomized, by_hand, lead):
  module = layer_norm(precision.FLOAT32, "norm")
  x = jnp.asarray(3 + 2 * rng.normal(size=(*lead, 8)), jnp.float32)
  params = randomized(module, x)
  np.testing.assert_allclose(
    module.apply({"params": params}, x),
    by_hand.layer_norm(params, x),
    rtol=1e-4,
    atol=1e-5,
  )


def test_parameters_of_layer_norm_carry_their_axis():
  boxed = layer_norm(precision.FLOAT32, "norm").init(KEY, jnp.ones((1, 4)))
  assert {p.names for p in boxed["params"].values()} == {(axes.EMBED,)}


@pytest.mark.parametrize("name", precision.POLICIES)
def test_layer_norm_gives_activations_and_keeps_parameters_float32(name):
  policy = precision.POLICIES[name]
  module = layer_norm(policy, "norm")
  x = jnp.ones((2, 4), policy.activations)
  variables = module.init(KEY, x)
  assert module.apply(variables, x).dtype == policy.activations
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_statistics_of_layer_norm_are_in_float32(rng, by_hand):
  # In bfloat16, 256 + noise would lose the noise in the sum of squares.
  module = layer_norm(precision.POLICIES["bfloat16"], "norm")
  x = jnp.asarray(256 + 8 * rng.normal(size=(2, 64)), jnp.bfloat16)
  ones = {"scale": np.ones(64, np.float32), "bias": np.zeros(64, np.float32)}
  got = np.asarray(module.apply({"params": ones}, x), np.float32)
  # One rounding of the result.
  np.testing.assert_allclose(
    got, by_hand.layer_norm(ones, x), rtol=2**-7, atol=2**-7
  )


def test_unit_length_divides_by_the_length(rng):
  x = rng.normal(size=(3, 2, 5)).astype(np.float32)
  got = unit_length(jnp.asarray(x))
  for index in np.ndindex(3, 2):
    np.testing.assert_allclose(
      got[index], x[index] / np.linalg.norm(x[index]), rtol=1e-5
    )


def test_unit_length_of_nothing_is_nothing_with_a_finite_gradient():
  zeros = jnp.zeros((2, 4))
  np.testing.assert_array_equal(unit_length(zeros), 0.0)
  grad = jax.grad(lambda x: jnp.sum(unit_length(x)))(zeros)
  assert np.all(np.isfinite(grad))


def test_unit_length_of_bfloat16_is_float32():
  assert unit_length(jnp.ones((2, 4), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_the_gradient_rule_of_layer_norm_is_that_of_linen(rng, lead):
  x, weights = (
    jnp.asarray(3 + 2 * rng.normal(size=(*lead, 8)), jnp.float32)
    for _ in range(2)
  )
  params = {
    name: jnp.asarray(rng.normal(size=8), jnp.float32)
    for name in ("scale", "bias")
  }
  modules = layer_norm(precision.FLOAT32, "norm"), nn.LayerNorm(epsilon=1e-6)
  got, expected = (
    jax.jit(
      jax.grad(
        lambda p, x, m=module: jnp.sum(weights * m.apply({"params": p}, x)),
        argnums=(0, 1),
      )
    )(params, x)
    for module in modules
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
    got,
    expected,
  )
