import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, precision, trees
from mmjax.models.heads import HEADS, LinearHead, TokenHead

D, CLASSES = 16, 7
KEY = jax.random.key(0)
# Linear: one projection. Mlp: one to twice the width, norm, projection. Token:
# a square one, norm, projection.
GOLDEN = {
  "linear": 16 * 7 + 7,
  "mlp": (16 * 32 + 32) + 2 * 32 + (32 * 7 + 7),
  "tied_token": (16 * 16 + 16) + 2 * 16 + 7,  # And a table of the encoder's.
  "token": (16 * 16 + 16) + 2 * 16 + (16 * 7 + 7),
}
TABLE = np.random.default_rng(6).normal(size=(CLASSES, D)).astype(np.float32)


@pytest.fixture(scope="module")
def x():
  rng = np.random.default_rng(5)
  return jnp.asarray(rng.normal(size=(2, 3, D)), jnp.float32)


def _by_hand(name, params, x, by_hand):
  if name == "mlp":
    x = by_hand.linear(params["hidden"], x)
    x = by_hand.layer_norm(params["norm"], x, epsilon=1e-5)
    x = x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))) / 2
  elif name != "linear":
    x = by_hand.gelu(by_hand.linear(params["hidden"], x))
    x = by_hand.layer_norm(params["norm"], x)
  if name == "tied_token":
    return x @ TABLE.T.astype(np.float64) + np.asarray(params["bias"])
  return by_hand.linear(params["logits"], x)


def _given(name):
  """What a head is called with besides features."""
  return {"table": jnp.asarray(TABLE)} if name == "tied_token" else {}


def test_every_head_has_a_golden_number_of_parameters():
  assert set(GOLDEN) == set(HEADS)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
@pytest.mark.parametrize("name", HEADS)
def test_logits_are_those_by_hand(x, randomized, by_hand, name, lead):
  x = x[(0,) * (2 - len(lead))]
  module = HEADS[name](CLASSES)
  params = randomized(module, x, **_given(name))
  assert trees.num_params(params) == GOLDEN[name]
  got = module.apply({"params": params}, x, **_given(name))
  np.testing.assert_allclose(
    got, _by_hand(name, params, x, by_hand), rtol=1e-4, atol=1e-5
  )


def test_a_linear_head_starts_at_chance(x):
  logits, _ = LinearHead(CLASSES).init_with_output(KEY, x)
  np.testing.assert_array_equal(logits, 0.0)


def test_a_token_head_starts_close_to_chance():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(64, D)), jnp.float32)
  logits, _ = jax.jit(lambda: TokenHead(50).init_with_output(KEY, x))()
  logits = np.asarray(logits, np.float64)
  loss = np.log(np.exp(logits).sum(-1)) - logits[:, 0]
  # Logits have standard deviation 0.02 sqrt(16) = 0.08; half their variance
  # is added to ln 50, and 64 draws of 0.08 have a mean within 0.03.
  assert abs(loss.mean() - math.log(50)) < 0.04


@pytest.mark.parametrize("name", ["linear", "token"])
def test_parameters_of_logits_carry_axis_names(x, name):
  boxed = jax.eval_shape(lambda: HEADS[name](CLASSES).init(KEY, x))["params"]
  assert boxed["logits"]["kernel"].names == (axes.EMBED, axes.VOCAB)
  assert boxed["logits"]["bias"].names == (axes.VOCAB,)


@pytest.mark.parametrize("policy", precision.POLICIES)
@pytest.mark.parametrize("name", HEADS)
def test_logits_follow_the_policy_and_parameters_stay_float32(x, name, policy):
  policy = precision.POLICIES[policy]
  module = HEADS[name](CLASSES, precision=policy)
  logits, variables = jax.eval_shape(
    lambda: module.init_with_output(KEY, x, **_given(name))
  )
  assert logits.dtype == policy.activations
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_a_head_tied_to_another_vocabulary_is_refused(x):
  with pytest.raises(errors.UserError, match="9 classes is tied to the 7"):
    jax.eval_shape(
      lambda: HEADS["tied_token"](9).init(KEY, x, table=jnp.asarray(TABLE))
    )


@pytest.mark.parametrize("name", ["token", "tied_token"])
def test_a_token_head_takes_its_activation(x, randomized, by_hand, name):
  module = HEADS[name](CLASSES, activation="relu", norm_epsilon=0.5)
  params = randomized(module, x, **_given(name))
  got = module.apply({"params": params}, x, **_given(name))
  hidden = np.maximum(by_hand.linear(params["hidden"], x), 0.0)
  hidden = by_hand.layer_norm(params["norm"], hidden, 0.5)
  if name == "tied_token":
    expected = hidden @ TABLE.T.astype(np.float64) + np.asarray(params["bias"])
  else:
    expected = by_hand.linear(params["logits"], hidden)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_a_head_of_an_unknown_activation_is_refused(x):
  with pytest.raises(errors.UserError, match="activation 'gelo'.*gelu"):
    TokenHead(CLASSES, activation="gelo").init(KEY, x)


def test_a_linear_head_may_have_a_projection_and_tanh_first(
  x, randomized, by_hand
):
  module = LinearHead(CLASSES, tanh=True)
  params = randomized(module, x)
  hidden = np.tanh(by_hand.linear(params["hidden"], x))
  np.testing.assert_allclose(
    module.apply({"params": params}, x),
    by_hand.linear(params["logits"], hidden),
    rtol=1e-4,
    atol=1e-5,
  )
