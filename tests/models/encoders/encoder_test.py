import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors, trees
from mmjax.core.sequence import Sequence
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.variants import Size

SIZE = Size(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
KEY = jax.random.key(0)


class Given(nn.Module):
  """A stem whose inputs are the tokens."""

  def __call__(self, inputs, *, mask=None, hidden=None, train=False):
    mask = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
    return Sequence(inputs, mask, num_content=inputs.shape[1])


@pytest.fixture(scope="module")
def tokens():
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.normal(size=(3, 4, 16)), jnp.float32)
  return x, jnp.ones((3, 4), bool).at[1, 2:].set(False)


def _encode(module, params, x, **kwargs):
  return jax.jit(
    lambda x: module.apply({"params": params}, x, train=False, **kwargs)
  )(x)


def test_an_encoder_is_its_stem_and_a_stack(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  for i in range(3):
    np.testing.assert_allclose(
      got.x[i],
      by_hand.stack(params["stack"], x[i], mask[i]),
      rtol=1e-4,
      atol=1e-5,
    )
  np.testing.assert_array_equal(got.mask, mask)
  assert (got.num_prefix, got.num_content) == (0, 4)


def test_cls_pooling_puts_a_learned_token_in_front(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE, pool_kind="cls")
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  assert (got.num_prefix, got.num_content) == (1, 4)
  np.testing.assert_array_equal(got.mask[:, 0], True)
  np.testing.assert_array_equal(got.content_mask, mask)
  for i in range(3):
    tokens_i = np.concatenate([params["cls"][0], x[i]])
    expected = by_hand.stack(params["stack"], tokens_i, np.asarray(got.mask[i]))
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  pooled = module.apply({"params": params}, got, method="pool")
  np.testing.assert_array_equal(pooled, got.x[:, 0])


def test_padding_equals_slicing(tokens, randomized):
  x, mask = tokens
  module = Encoder(Given(), SIZE)
  params = randomized(module, x, train=False)
  whole = _encode(module, params, x, mask=mask)
  alone = _encode(module, params, x[1:2, :2])
  np.testing.assert_allclose(whole.x[1:2, :2], alone.x, rtol=1e-4, atol=1e-5)


def test_only_map_pooling_brings_parameters(tokens):
  x, _ = tokens

  def count(kind):
    module = Encoder(Given(), SIZE, pool_kind=kind)

    def run(module):
      return module.pool(module(x, train=False))

    return trees.num_params(
      jax.eval_shape(lambda: module.init(KEY, method=run))["params"]
    )

  assert count("cls") == count("mean") + 16
  # Query; attention; norm; feed-forward.
  assert count("map") == (
    count("mean") + 16 + 4 * (16 * 16 + 16) + 32 + 2 * 16 * 24 + 24 + 16
  )


def test_an_unknown_pooling_is_refused_even_if_nobody_pools(tokens):
  with pytest.raises(errors.UserError, match="Did you mean 'mean'"):
    jax.eval_shape(
      lambda: Encoder(Given(), SIZE, pool_kind="meen").init(
        KEY, tokens[0], train=False
      )
    )
