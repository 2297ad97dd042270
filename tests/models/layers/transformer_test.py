import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors, precision, trees
from mmjax.models.layers.options import REMAT_POLICIES
from mmjax.models.layers.transformer import Block, DropPath, Stack

B, N, D, MLP = 2, 5, 16, 24
KEY = jax.random.key(0)
# Four attention projections, two of the MLP, two norms; biases everywhere.
BLOCK_SIZE = 4 * (D * D + D) + (D * MLP + MLP) + (MLP * D + D) + 2 * 2 * D


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(B, N, D)), jnp.float32)
  mask = jnp.ones((B, 1, N), bool).at[1, 0, 3:].set(False)
  return x, mask


@pytest.fixture(scope="module")
def unrolled(inputs, randomized):
  x, mask = inputs
  module = Stack(num_layers=2, num_heads=2, mlp_dim=MLP)
  return module, randomized(module, x, mask=mask, train=False)


def _with(module, **options):
  """A stack with some options changed."""
  return module.clone(options=dataclasses.replace(module.options, **options))


def _stacked(params):
  """Parameters of unrolled layers as scanned ones want them."""
  layers = [params[n] for n in sorted(params) if n.startswith("layer_")]
  return {
    "layers": jax.tree.map(lambda *x: jnp.stack(x), *layers),
    "norm": params["norm"],
  }


def _value_and_grad(module, params, x, mask):
  def loss(params, x):
    out = module.apply({"params": params}, x, mask=mask, train=False)
    return jnp.sum(out**3), out

  (_, out), grads = jax.jit(
    jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
  )(params, x)
  return out, grads


def _num_dots(module, params, x, mask):
  def loss(params):
    out = module.apply({"params": params}, x, mask=mask, train=False)
    return jnp.sum(out**3)

  return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general[")


def test_block_adds_attention_then_mlp(inputs, randomized, by_hand):
  x, mask = inputs
  module = Block(num_heads=2, mlp_dim=MLP)
  params = randomized(module, x, mask, False)
  assert trees.num_params(params) == BLOCK_SIZE
  got = module.apply({"params": params}, x, mask, False)
  for i in range(B):
    rows = np.broadcast_to(mask[i], (N, N))
    np.testing.assert_allclose(
      got[i], by_hand.block(params, x[i], rows), rtol=1e-4, atol=1e-5
    )


def test_stack_is_its_blocks_and_a_norm(inputs, unrolled, by_hand):
  x, mask = inputs
  module, params = unrolled
  assert trees.num_params(params) == 2 * BLOCK_SIZE + 2 * D
  got = jax.jit(
    lambda x: module.apply({"params": params}, x, mask=mask, train=False)
  )(x)
  for i in range(B):
    np.testing.assert_allclose(
      got[i], by_hand.stack(params, x[i], mask[i]), rtol=1e-4, atol=1e-5
    )


@pytest.fixture(scope="module")
def context():
  """Seven tokens of another width; the second example sees none of them."""
  rng = np.random.default_rng(2)
  y = jnp.asarray(rng.normal(size=(B, 7, 10)), jnp.float32)
  return y, jnp.ones((B, 1, 7), bool).at[0, 0, 4:].set(False).at[1].set(False)


@pytest.mark.parametrize("context_norm", [False, True])
def test_cross_attention_comes_between_attention_and_mlp(
  inputs, context, randomized, by_hand, context_norm
):
  x, mask = inputs
  y, y_mask = context
  module = Block(num_heads=2, mlp_dim=MLP, context_norm=context_norm)
  args = (x, mask, False, None, y, y_mask)
  params = randomized(module, *args)
  assert ("context_norm" in params) == context_norm
  got = module.apply({"params": params}, *args)
  for i in range(B):
    seen = np.broadcast_to(mask[i], (N, N))
    z = by_hand.layer_norm(params["attention_norm"], x[i])
    expected = x[i] + by_hand.attention(params["attention"], z, z, seen)
    if i == 0:  # To the other, it is as if there were no context.
      rows = np.asarray(y[i, :4])
      if context_norm:
        rows = by_hand.layer_norm(params["context_norm"], rows)
      expected = expected + by_hand.attention(
        params["cross_attention"],
        by_hand.layer_norm(params["cross_attention_norm"], expected),
        rows,
        np.ones((N, 4), bool),
      )
    z = by_hand.layer_norm(params["mlp_norm"], expected)
    expected = expected + by_hand.mlp(params["mlp"], z)
    np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5)


def test_a_block_may_lack_attention_or_feed_forward(inputs, context):
  x, mask = inputs

  def names(**fields):
    module = Block(num_heads=2, mlp_dim=MLP, **fields)
    args = (x, mask, False, None, *context)
    return set(jax.eval_shape(lambda: module.init(KEY, *args))["params"])

  attention = {"attention", "attention_norm"}
  cross = {"cross_attention", "cross_attention_norm"}
  mlp = {"mlp", "mlp_norm"}
  assert names() == attention | cross | mlp
  assert names(self_attention=False) == cross | mlp
  assert names(feed_forward=False) == attention | cross
  assert names(self_attention=False, feed_forward=False) == cross


def test_each_expert_has_its_stretch_of_the_sequence(
  inputs, randomized, by_hand
):
  x, mask = inputs
  # Not in the order of their names: stretches follow one another as given.
  module = Block(num_heads=2, mlp_dim=MLP, experts=(("text", 2), ("image", 3)))
  params = randomized(module, x, mask, False)
  got = module.apply({"params": params}, x, mask, False)
  for i in range(B):
    for name, part in (("text", slice(0, 2)), ("image", slice(2, 5))):
      one = params | {"mlp": params[f"mlp_{name}"]}
      expected = by_hand.block(one, x[i], np.broadcast_to(mask[i], (N, N)))
      np.testing.assert_allclose(
        got[i, part], expected[part], rtol=1e-4, atol=1e-5
      )


def test_scanned_layers_take_experts_and_a_context(inputs, context, randomized):
  x, mask = inputs
  y, y_mask = context
  given = dict(mask=mask, train=False, context=y, context_mask=y_mask)
  module = Stack(2, 2, MLP, experts=(("text", 2), ("image", 3)))
  params = randomized(module, x, **given)
  expected = module.apply({"params": params}, x, **given)
  got = _with(module, scan=True).apply({"params": _stacked(params)}, x, **given)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_scanned_layers_cannot_have_experts_in_some_only(inputs):
  x, mask = inputs
  module = Stack(2, 2, MLP, experts=(("text", N),), fused_layers=1)
  with pytest.raises(errors.UserError, match="set scan=False"):
    _with(module, scan=True).init(KEY, x, mask=mask, train=False)


def test_scanned_layers_compute_what_unrolled_ones_do(inputs, unrolled):
  x, mask = inputs
  module, params = unrolled
  out, (grads, grad_x) = _value_and_grad(module, params, x, mask)
  scanned = _with(module, scan=True)
  got, (got_grads, got_grad_x) = _value_and_grad(
    scanned, _stacked(params), x, mask
  )
  np.testing.assert_allclose(got, out, rtol=1e-4, atol=1e-5)
  for a, b in zip(
    jax.tree.leaves((got_grads, got_grad_x)),
    jax.tree.leaves((_stacked(grads), grad_x)),
    strict=True,
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)  # Sums of cubes.


def test_scanned_parameters_have_a_named_axis_of_layers(inputs):
  x, mask = inputs
  module = _with(Stack(3, 2, MLP), scan=True)
  boxed = jax.eval_shape(lambda: module.init(KEY, x, mask=mask, train=False))[
    "params"
  ]
  kernel = boxed["layers"]["mlp"]["hidden"]["kernel"]
  assert kernel.names == (axes.LAYERS, axes.EMBED, axes.MLP)
  assert nn.meta.unbox(kernel).shape == (3, D, MLP)


def test_scanned_layers_start_differently():
  module = _with(Stack(2, 2, MLP), scan=True)
  params = nn.meta.unbox(
    jax.jit(
      lambda key: module.init(
        key, jnp.ones((1, 1, D)), mask=jnp.ones((1, 1, 1), bool), train=False
      )
    )(KEY)
  )["params"]
  first, second = params["layers"]["mlp"]["hidden"]["kernel"]
  assert np.any(np.asarray(first) != np.asarray(second))


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("remat", [r for r in REMAT_POLICIES if r != "none"])
def test_computing_again_changes_neither_value_nor_gradient(
  inputs, unrolled, remat, scan
):
  x, mask = inputs
  module, params = unrolled
  if scan:
    module, params = _with(module, scan=True), _stacked(params)
  out, grads = _value_and_grad(module, params, x, mask)
  again = _with(module, remat=remat)
  assert (
    trees.diff(
      params,
      nn.meta.unbox(
        jax.eval_shape(lambda: again.init(KEY, x, mask=mask, train=False))
      )["params"],
    )
    == ""
  )
  got, got_grads = _value_and_grad(again, params, x, mask)
  np.testing.assert_allclose(got, out, rtol=1e-5, atol=1e-6)
  for a, b in zip(
    jax.tree.leaves(got_grads), jax.tree.leaves(grads), strict=True
  ):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_remat_policies_differ_in_how_much_is_computed_again(inputs, unrolled):
  x, mask = inputs
  module, params = unrolled
  counts = {
    name: _num_dots(_with(module, remat=name), params, x, mask)
    for name in REMAT_POLICIES
  }
  # Of a block: 6 projections and 2 products of attention, each with two more
  # in the backward pass (the first block's too: its norm wants a gradient).
  assert counts["none"] == 2 * 8 * 3
  assert counts["none"] < counts["dots"] < counts["full"]


@pytest.mark.parametrize("name", precision.POLICIES)
@pytest.mark.parametrize("scan", [False, True])
def test_activations_follow_the_policy_and_parameters_stay_float32(
  inputs, name, scan
):
  x, mask = inputs
  policy = precision.POLICIES[name]
  module = _with(Stack(2, 2, MLP, precision=policy), scan=scan)
  out, variables = jax.eval_shape(
    lambda: module.init_with_output(KEY, x, mask=mask, train=False)
  )
  assert out.dtype == policy.activations
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_bfloat16_is_close_to_float32(inputs, unrolled, by_hand):
  x, mask = inputs
  module, params = unrolled
  low = module.clone(precision=precision.POLICIES["bfloat16"])
  got = jax.jit(
    lambda x: low.apply({"params": params}, x, mask=mask, train=False)
  )(x)
  for i in range(B):
    # Outputs are of size 1; a dozen roundings of 8 bits.
    np.testing.assert_allclose(
      np.asarray(got[i], np.float32),
      by_hand.stack(params, x[i], mask[i]),
      atol=0.1,
    )


def _drop_path_rates(module, x, mask):
  """The rates of the `DropPath`s of a stack, in the order of their calls."""
  rates = []

  def note(next_fn, args, kwargs, context):
    if isinstance(context.module, DropPath):
      rates.append(context.module.rate)
    return next_fn(*args, **kwargs)

  with nn.intercept_methods(note):
    jax.eval_shape(lambda: module.init(KEY, x, mask=mask, train=False))
  return rates


def test_drop_path_rates_grow_linearly_from_nothing(inputs):
  x, mask = inputs
  rates = _drop_path_rates(_with(Stack(3, 2, MLP), drop_path_rate=0.4), x, mask)
  # Two branches a block.
  np.testing.assert_allclose(rates, [0, 0, 0.2, 0.2, 0.4, 0.4])


def _drop(rate, x, *, train=True, seed=0):
  rngs = {"drop_path": jax.random.key(seed)}
  return np.asarray(DropPath(rate).apply({}, x, train=train, rngs=rngs))


def test_drop_path_drops_whole_examples_and_keeps_the_mean():
  x = jnp.arange(1.0, 12001).reshape(2000, 3, 2)
  out = _drop(0.25, x)
  dropped = np.all(out == 0, axis=(1, 2))
  np.testing.assert_allclose(out[~dropped], x[~dropped] / 0.75, rtol=1e-6)
  # Within four standard deviations of a binomial distribution.
  assert abs(dropped.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 2000)


def test_drop_path_is_off_outside_of_training_and_at_rate_0(inputs):
  x, _ = inputs
  np.testing.assert_array_equal(_drop(0.9, x, train=False), x)
  np.testing.assert_array_equal(_drop(0.0, x), x)


def test_drop_path_follows_its_key():
  x = jnp.ones((64, 1, 1))
  np.testing.assert_array_equal(_drop(0.5, x, seed=3), _drop(0.5, x, seed=3))
  assert np.any(_drop(0.5, x, seed=3) != _drop(0.5, x, seed=4))


@pytest.mark.parametrize("scan", [False, True])
def test_dropout_of_a_stack_acts_in_training_only(inputs, unrolled, scan):
  x, mask = inputs
  module, params = unrolled
  module = _with(module, dropout_rate=0.5, scan=scan)
  params = _stacked(params) if scan else params

  @jax.jit
  def run(key):
    return module.apply(
      {"params": params}, x, mask=mask, train=True, rngs={"dropout": key}
    )

  first, again, other = run(KEY), run(KEY), run(jax.random.key(1))
  np.testing.assert_array_equal(first, again)
  assert np.any(np.asarray(first) != np.asarray(other))
  # Without training, no key is asked for.
  off = module.apply({"params": params}, x, mask=mask, train=False)
  assert np.any(np.asarray(first) != np.asarray(off))
