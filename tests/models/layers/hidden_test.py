import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors
from mmjax.models.layers import hidden as hiding


class Stem(nn.Module):
  @nn.compact
  def __call__(self, x, hidden=None):
    x = jnp.asarray(x)
    hidden = None if hidden is None else jnp.asarray(hidden)
    return hiding.replace(self, x, hidden)


def test_the_token_stands_where_tokens_are_hidden_and_nowhere_else():
  x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
  hidden = np.array([[0, 3], [2, 4]])
  stem = Stem()
  variables = nn.meta.unbox(stem.init(jax.random.key(0), x))
  token = np.asarray(variables["params"]["mask_token"])
  want = x.copy()
  for row, places in enumerate(hidden):
    want[row, places] = token

  np.testing.assert_array_equal(stem.apply(variables, x, hidden), want)
  np.testing.assert_array_equal(stem.apply(variables, x), x)


def test_the_token_takes_the_dtype_of_the_tokens():
  x = jnp.zeros((1, 2, 3), jnp.bfloat16)
  stem = Stem()
  variables = stem.init(jax.random.key(0), x)

  assert variables["params"]["mask_token"].value.dtype == jnp.float32
  assert stem.apply(variables, x, jnp.array([[1]])).dtype == jnp.bfloat16


def test_an_unknown_way_to_hide_is_refused():
  hiding.check("drop")
  with pytest.raises(errors.UserError, match="'dorp'.*'drop'"):
    hiding.check("dorp")


def test_dropping_all_tokens_is_refused():
  hiding.check_some_stay(3, 4)
  with pytest.raises(errors.UserError, match="All 4 .* hidden='replace'"):
    hiding.check_some_stay(4, 4)
