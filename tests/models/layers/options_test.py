"""Every option of a block against the formula in its source, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from mmjax.core import errors, trees
from mmjax.models.layers.options import StackOptions, stack_options
from mmjax.models.layers.transformer import Block, Stack

B, N, D, MLP = 2, 5, 16, 24
PROJECTIONS = 4 * D * D + 2 * D * MLP


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.default_rng(4)
  x = jnp.asarray(rng.normal(size=(B, N, D)), jnp.float32)
  mask = jnp.ones((B, 1, N), bool).at[1, 0, 3:].set(False)
  return x, mask


@pytest.fixture(scope="module")
def run(inputs, randomized):
  """Runs a block with some options: parameters and what comes out."""
  x, mask = inputs

  def run(**options):
    module = Block(2, MLP, StackOptions(**options))
    params = randomized(module, x, mask, False)
    return params, module.apply({"params": params}, x, mask, False)

  return run


def _check(got, inputs, expected):
  x, mask = inputs
  for i in range(B):
    rows = np.broadcast_to(mask[i], (N, N))
    want = expected(np.asarray(x[i], np.float64), rows)
    np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-5)


def test_post_norm_is_the_norm_of_the_sum(inputs, run, by_hand):
  params, got = run(norm_position="post")

  def expected(x, rows):
    attended = by_hand.attention(params["attention"], x, x, rows)
    x = by_hand.layer_norm(params["attention_norm"], x + attended)
    return by_hand.layer_norm(
      params["mlp_norm"], x + by_hand.mlp(params["mlp"], x)
    )

  _check(got, inputs, expected)


def test_a_post_norm_stack_has_no_norm_at_its_end(inputs):
  x, mask = inputs
  module = Stack(2, 2, MLP, StackOptions(norm_position="post"))
  params = jax.eval_shape(
    lambda: module.init(jax.random.key(0), x, mask=mask, train=False)
  )["params"]
  assert sorted(params) == ["layer_00", "layer_01"]


def test_a_norm_at_the_end_may_be_left_out(inputs, randomized, by_hand):
  x, mask = inputs
  given = dict(mask=mask, train=False)
  params = randomized(Stack(1, 2, MLP), x, **given)
  whole = Stack(1, 2, MLP).apply({"params": params}, x, **given)
  norm = params.pop("norm")
  module = Stack(1, 2, MLP, StackOptions(final_norm=False))
  got = module.apply({"params": params}, x, **given)
  expected = by_hand.layer_norm(norm, got)
  np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-5)


def test_rms_norm_takes_off_no_mean(inputs, run, by_hand):
  params, got = run(norm="rms_norm", norm_epsilon=1e-3)
  assert set(params["mlp_norm"]) == {"scale"}

  def rms(params, x):
    size = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-3)
    return x / size * np.asarray(params["scale"], np.float64)

  def expected(x, rows):
    y = rms(params["attention_norm"], x)
    x = x + by_hand.attention(params["attention"], y, y, rows)
    return x + by_hand.mlp(params["mlp"], rms(params["mlp_norm"], x))

  _check(got, inputs, expected)


def test_a_gate_multiplies_the_activated_projection(inputs, run, by_hand):
  params, got = run(gated=True, activation="silu")

  def expected(x, rows):
    y = by_hand.layer_norm(params["attention_norm"], x)
    x = x + by_hand.attention(params["attention"], y, y, rows)
    y = by_hand.layer_norm(params["mlp_norm"], x)
    gate = by_hand.linear(params["mlp"]["gate"], y)
    hidden = by_hand.linear(params["mlp"]["hidden"], y)
    swish = gate * special.expit(gate)
    return x + by_hand.linear(params["mlp"]["out"], swish * hidden)

  _check(got, inputs, expected)


def test_layer_scale_multiplies_each_branch(inputs, run, by_hand):
  params, got = run(layer_scale=1e-5)

  def expected(x, rows):
    y = by_hand.layer_norm(params["attention_norm"], x)
    y = by_hand.attention(params["attention"], y, y, rows)
    x = x + np.asarray(params["attention_scale"], np.float64) * y
    y = by_hand.mlp(params["mlp"], by_hand.layer_norm(params["mlp_norm"], x))
    return x + np.asarray(params["mlp_scale"], np.float64) * y

  _check(got, inputs, expected)


def test_layer_scale_starts_at_its_value(inputs):
  x, mask = inputs
  module = Block(2, MLP, StackOptions(layer_scale=0.25))
  params = module.init(jax.random.key(0), x, mask, False)["params"]
  np.testing.assert_array_equal(params["mlp_scale"].value, np.full(D, 0.25))


def test_queries_and_keys_are_normalised_per_head(inputs, run, by_hand):
  params, got = run(qk_norm=True)
  assert params["attention"]["query_norm"]["scale"].shape == (D // 2,)

  def head(params, name, y, k):
    kernel = np.asarray(params[name]["kernel"], np.float64)[:, k]
    return y @ kernel + np.asarray(params[name]["bias"], np.float64)[k]

  def rms(params, x):
    size = np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    return x / size * np.asarray(params["scale"], np.float64)

  def attention(p, y, rows):
    out = np.zeros_like(y) + np.asarray(p["out"]["bias"], np.float64)
    for k in range(2):
      query = rms(p["query_norm"], head(p, "query", y, k))
      key = rms(p["key_norm"], head(p, "key", y, k))
      logits = np.where(rows, query @ key.T / np.sqrt(D // 2), -np.inf)
      mixed = special.softmax(logits, axis=1) @ head(p, "value", y, k)
      out += mixed @ np.asarray(p["out"]["kernel"], np.float64)[k]
    return out

  def expected(x, rows):
    y = by_hand.layer_norm(params["attention_norm"], x)
    x = x + attention(params["attention"], y, rows)
    y = by_hand.layer_norm(params["mlp_norm"], x)
    return x + by_hand.mlp(params["mlp"], y)

  _check(got, inputs, expected)


def test_without_biases_there_are_none_in_the_projections(run):
  params, _ = run(use_bias=False)
  names = [n for n in trees.flatten(params) if n.endswith("bias")]
  assert sorted(names) == ["attention_norm/bias", "mlp_norm/bias"]
  assert trees.num_params(params) == PROJECTIONS + 2 * 2 * D


def test_a_section_of_a_config_becomes_options():
  got = stack_options({"norm": "rms_norm", "layer_scale": 0.1})
  assert got == StackOptions(norm="rms_norm", layer_scale=0.1)
  assert stack_options(got) is got
  with pytest.raises(errors.UserError, match="Did you mean 'layer_scale'"):
    stack_options({"layerscale": 0.1})


@pytest.mark.parametrize(
  ("field", "value", "message"),
  [
    ("activation", "gelo", "Did you mean 'gelu'"),
    ("norm", "layernorm", "Did you mean 'layer_norm'"),
    ("norm_position", "psot", "Did you mean 'post'"),
    ("remat", "ful", "Did you mean 'full'"),
    ("dropout_rate", 1.0, r"dropout_rate=1.0, expected \[0, 1\)"),
    ("drop_path_rate", -0.1, r"drop_path_rate=-0.1, expected \[0, 1\)"),
    ("layer_scale", -1.0, "layer_scale=-1.0"),
    ("norm_epsilon", 0.0, "norm_epsilon=0.0"),
  ],
)
def test_what_an_option_cannot_be_is_refused(field, value, message):
  with pytest.raises(errors.UserError, match=message):
    dataclasses.replace(StackOptions(), **{field: value})


def test_blocks_that_end_in_a_norm_keep_it():
  with pytest.raises(errors.UserError, match="norm_position='pre'"):
    StackOptions(norm_position="post", final_norm=False)


def test_drop_path_of_scanned_layers_is_refused():
  with pytest.raises(errors.UserError, match="scan=False or drop_path_rate=0"):
    StackOptions(scan=True, drop_path_rate=0.1)
