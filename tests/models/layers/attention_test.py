import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, precision
from mmjax.models.layers.attention import Attention, dot_product_attention

B, N, M, K, D = 2, 3, 5, 2, 4
KEY = jax.random.key(0)


@pytest.fixture
def qkv(rng):
  def draw(length):
    return jnp.asarray(rng.normal(size=(B, length, K, D)), jnp.float32)

  return draw(N), draw(M), draw(M)


def _mask(rng, q=N):
  """A random mask in which every query sees something."""
  mask = rng.random((B, q, M)) < 0.5
  mask[..., 0] = True
  return jnp.asarray(mask)


def _loops(query, key, value, mask):
  query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
  mask = np.broadcast_to(mask, (B, query.shape[1], key.shape[1]))
  out = np.zeros(query.shape)
  for b, n, k in np.ndindex(query.shape[:3]):
    seen = np.flatnonzero(mask[b, n])
    if len(seen):
      logits = key[b, seen, k] @ query[b, n, k] / np.sqrt(D)
      probs = np.exp(logits) / np.sum(np.exp(logits))
      out[b, n, k] = probs @ value[b, seen, k]
  return out


def _naive(query, key, value, mask):
  """Softmax attention in plain jax.numpy, for autodiff."""
  logits = jnp.einsum("bnkd,bmkd->bknm", query, key) / np.sqrt(D)
  probs = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1)
  return jnp.einsum("bknm,bmkd->bnkd", probs, value)


@pytest.mark.parametrize("q", [1, N])
def test_attention_is_a_mean_weighted_by_the_softmax(rng, qkv, q):
  mask = _mask(rng, q)
  got = dot_product_attention(*qkv, mask)
  np.testing.assert_allclose(got, _loops(*qkv, mask), rtol=1e-5, atol=1e-6)


def test_attention_agrees_with_jax_nn(rng, qkv):
  mask = _mask(rng)
  expected = jax.nn.dot_product_attention(*qkv, mask=mask[:, None])
  got = dot_product_attention(*qkv, mask)
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("q", [1, N])
def test_the_gradient_rule_agrees_with_autodiff(rng, qkv, q):
  mask = _mask(rng, q)
  weights = jnp.asarray(rng.normal(size=(B, N, K, D)), jnp.float32)

  def gradients(fn):
    return jax.grad(
      lambda *qkv: jnp.sum(weights * fn(*qkv, mask)), argnums=(0, 1, 2)
    )(*qkv)

  for got, expected in zip(
    gradients(dot_product_attention), gradients(_naive), strict=True
  ):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("lead", [1, B])
def test_a_bias_is_added_to_the_logits(rng, qkv, lead):
  mask = _mask(rng)
  bias = jnp.asarray(rng.normal(size=(lead, K, N, M)), jnp.float32)
  weights = jnp.asarray(rng.normal(size=(B, N, K, D)), jnp.float32)

  def naive(query, key, value, bias):
    logits = jnp.einsum("bnkd,bmkd->bknm", query, key) / np.sqrt(D) + bias
    probs = jax.nn.softmax(jnp.where(mask[:, None], logits, -1e9), axis=-1)
    return jnp.einsum("bknm,bmkd->bnkd", probs, value)

  def ours(query, key, value, bias):
    return dot_product_attention(query, key, value, mask, bias=bias)

  np.testing.assert_allclose(
    ours(*qkv, bias), naive(*qkv, bias), rtol=1e-5, atol=1e-6
  )
  gradients = [
    jax.grad(lambda *x, f=f: jnp.sum(weights * f(*x)), (0, 1, 2, 3))(*qkv, bias)
    for f in (ours, naive)
  ]
  for got, expected in zip(*gradients, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_the_gradient_rule_agrees_with_finite_differences(rng, qkv):
  mask = _mask(rng)
  weights = rng.normal(size=(B, N, K, D))
  direction = [rng.normal(size=x.shape) for x in qkv]

  def loss(step):
    moved = [
      np.asarray(x, np.float64) + step * d
      for x, d in zip(qkv, direction, strict=True)
    ]
    return np.sum(weights * _loops(*moved, mask))

  grads = jax.grad(
    lambda *qkv: jnp.sum(
      jnp.asarray(weights, jnp.float32) * dot_product_attention(*qkv, mask)
    ),
    argnums=(0, 1, 2),
  )(*qkv)
  slope = sum(np.sum(g * d) for g, d in zip(grads, direction, strict=True))
  expected = (loss(1e-5) - loss(-1e-5)) / 2e-5
  # The gradient is a sum of some hundred float32 numbers.
  np.testing.assert_allclose(slope, expected, rtol=1e-4)


def test_a_query_that_sees_nothing_gets_zeros_and_finite_gradients(rng, qkv):
  mask = _mask(rng).at[0].set(False).at[1, 2].set(False)
  out, pull_back = jax.vjp(lambda *qkv: dot_product_attention(*qkv, mask), *qkv)
  np.testing.assert_array_equal(out[0], 0.0)
  np.testing.assert_array_equal(out[1, 2], 0.0)
  grads = pull_back(jnp.ones_like(out))
  assert all(np.all(np.isfinite(g)) for g in grads)
  for grad in grads:  # The first example sees nothing at all.
    np.testing.assert_array_equal(grad[0], 0.0)


def test_masked_keys_might_as_well_not_be_there(qkv):
  query, key, value = qkv
  mask = jnp.ones((B, 1, M), bool).at[:, :, 3:].set(False)
  short = mask[:, :, :3]
  got = dot_product_attention(query, key, value, mask)
  expected = dot_product_attention(query, key[:, :3], value[:, :3], short)
  np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_logits_of_any_size_are_fine(qkv):
  query, key, value = qkv
  mask = jnp.ones((B, 1, M), bool)
  got = dot_product_attention(1e4 * query, key, value, mask)
  # So large that the softmax picks one key.
  picked = jnp.argmax(jnp.einsum("bnkd,bmkd->bnkm", query, key), axis=-1)
  for b, n, k in np.ndindex(B, N, K):
    np.testing.assert_allclose(
      got[b, n, k], value[b, picked[b, n, k], k], rtol=1e-5
    )


@pytest.mark.parametrize("name", ["bfloat16", "bfloat16_products"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_reduced_precision_is_close_and_keeps_the_dtypes_of_gradients(
  rng, qkv, name, dtype
):
  policy = precision.POLICIES[name]
  mask = _mask(rng)
  low = [x.astype(dtype) for x in qkv]
  out, pull_back = jax.vjp(
    lambda *qkv: dot_product_attention(*qkv, mask, policy), *low
  )
  expected, reference = jax.vjp(lambda *qkv: _naive(*qkv, mask), *qkv)
  assert out.dtype == policy.activations
  # Some roundings of 8 bits each.
  np.testing.assert_allclose(np.asarray(out, np.float32), expected, atol=0.05)
  for got, want in zip(
    pull_back(jnp.ones_like(out)),
    reference(jnp.ones_like(expected)),
    strict=True,
  ):
    assert got.dtype == dtype
    np.testing.assert_allclose(np.asarray(got, np.float32), want, atol=0.1)


@pytest.mark.parametrize("name", precision.POLICIES)
def test_the_softmax_is_in_float32_whatever_the_policy(qkv, name):
  mask = jnp.ones((B, N, M), bool)
  policy = precision.POLICIES[name]
  traced = jax.make_jaxpr(
    lambda *qkv: dot_product_attention(*qkv, mask, policy)
  )(*qkv)
  kinds = re.findall(r":(\w+)\[[^\]]*\] = exp ", str(traced))
  assert kinds and set(kinds) == {"f32"}


def test_the_module_agrees_with_linen_given_the_same_weights(rng, randomized):
  x = jnp.asarray(rng.normal(size=(2, 4, 16)), jnp.float32)
  mask = jnp.asarray(rng.random((2, 4, 4)) < 0.7) | jnp.eye(4, dtype=bool)[None]
  module = Attention(num_heads=4)
  params = randomized(module, x, mask=mask)
  got = module.apply({"params": params}, x, mask=mask)
  linen = nn.MultiHeadDotProductAttention(num_heads=4)
  expected = linen.apply({"params": params}, x, mask=mask[:, None])
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_the_module_attends_to_a_context_of_another_width(
  rng, randomized, by_hand
):
  x = jnp.asarray(rng.normal(size=(2, 3, 8)), jnp.float32)
  context = jnp.asarray(rng.normal(size=(2, 5, 6)), jnp.float32)
  mask = jnp.asarray(rng.random((2, 1, 5)) < 0.6)
  module = Attention(num_heads=2)
  params = randomized(module, x, context, mask=mask)
  got = module.apply({"params": params}, x, context, mask=mask)
  for i in range(2):
    rows = np.broadcast_to(mask[i], (3, 5))
    expected = by_hand.attention(params, x[i], context[i], rows)
    np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5)


def test_kernels_of_the_module_carry_axis_names(rng):
  x, mask = jnp.ones((1, 2, 8)), jnp.ones((1, 1, 2), bool)
  boxed = Attention(num_heads=2).init(KEY, x, mask=mask)["params"]
  into = (axes.EMBED, axes.HEADS, axes.HEAD_DIM)
  assert boxed["query"]["kernel"].names == into
  assert boxed["out"]["kernel"].names == (into[1], into[2], into[0])


def test_heads_that_do_not_divide_the_width_are_refused():
  with pytest.raises(ValueError, match="embed_dim=8 .* num_heads=3"):
    Attention(num_heads=3).init(
      KEY, jnp.ones((1, 2, 8)), mask=jnp.ones((1, 1, 2), bool)
    )


def test_a_bias_of_keys_changes_nothing_and_can_be_left_out(rng, randomized):
  x = jnp.asarray(rng.normal(size=(B, N, K * D)), jnp.float32)
  mask = jnp.ones((B, 1, N), bool)
  whole, without = Attention(K), Attention(K, key_bias=False)
  params = randomized(whole, x, mask=mask)
  assert set(randomized(without, x, mask=mask)["key"]) == {"kernel"}
  less = {**params, "key": {"kernel": params["key"]["kernel"]}}
  np.testing.assert_allclose(
    without.apply({"params": less}, x, mask=mask),
    whole.apply({"params": params}, x, mask=mask),
    rtol=1e-4,
    atol=1e-6,
  )
