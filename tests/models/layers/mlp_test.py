import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, trees
from mmjax.models.layers.mlp import ACTIVATIONS, Mlp

KEY = jax.random.key(0)


def _by_formula(name, x):
  x = np.asarray(x, np.float64)
  if name == "gelu":
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
  if name == "gelu_tanh":
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return 0.5 * x * (1 + np.tanh(inner))
  if name == "quick_gelu":
    return x / (1 + np.exp(-1.702 * x))
  return {"relu": np.maximum(x, 0), "silu": x / (1 + np.exp(-x))}[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_what_its_name_says(rng, name):
  x = rng.normal(size=(50,)).astype(np.float32)
  np.testing.assert_allclose(
    ACTIVATIONS[name](jnp.asarray(x)),
    _by_formula(name, x),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize("lead", [(3,), (2, 3)])
def test_mlp_is_two_projections_and_an_activation(
  rng, randomized, by_hand, lead
):
  module = Mlp(mlp_dim=6)
  x = jnp.asarray(rng.normal(size=(*lead, 4)), jnp.float32)
  params = randomized(module, x, train=False)
  assert trees.num_params(params) == 4 * 6 + 6 + 6 * 4 + 4
  got = module.apply({"params": params}, x, train=False)
  np.testing.assert_allclose(got, by_hand.mlp(params, x), rtol=1e-4, atol=1e-5)


def test_dropout_acts_in_training_only_and_follows_its_key(rng, randomized):
  module = Mlp(mlp_dim=32, dropout_rate=0.5)
  x = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
  variables = {"params": randomized(module, x, train=False)}

  def run(seed):
    rngs = {"dropout": jax.random.key(seed)}
    return np.asarray(module.apply(variables, x, train=True, rngs=rngs))

  off = np.asarray(module.apply(variables, x, train=False))
  np.testing.assert_array_equal(run(0), run(0))
  assert np.any(run(0) != run(1)) and np.any(run(0) != off)


def test_an_unknown_activation_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'gelu'"):
    Mlp(4, activation="gelo").init(KEY, jnp.ones((1, 4)), train=False)
