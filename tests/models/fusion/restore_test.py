import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, trees
from mmjax.core.sequence import Sequence
from mmjax.models.fusion.restore import Restore

NUM, D = 5, 4
KEY = jax.random.key(0)
# Not ascending in the second row: positions say where a token belongs.
VISIBLE = np.asarray([[0, 2, 3], [4, 0, 1]], np.int32)


def _sequence(num_prefix):
  rng = np.random.default_rng(7)
  x = rng.normal(size=(2, num_prefix + 3, D)).astype(np.float32)
  mask = np.ones((2, num_prefix + 3), bool)
  mask[1, num_prefix] = False  # The token of position 4 does not count.
  return Sequence(
    jnp.asarray(x),
    jnp.asarray(mask),
    jnp.asarray(VISIBLE),
    num_prefix=num_prefix,
    num_content=NUM,
  )


@pytest.mark.parametrize("num_prefix", [0, 2])
def test_tokens_return_to_their_positions(randomized, num_prefix):
  sequence = _sequence(num_prefix)
  params = randomized(Restore(), sequence)
  got = Restore().apply({"params": params}, sequence)
  expected = np.zeros((2, NUM, D))
  mask = np.ones((2, NUM), bool)
  for i in range(2):
    for p in range(NUM):
      if p in VISIBLE[i]:
        j = num_prefix + list(VISIBLE[i]).index(p)
        expected[i, p], mask[i, p] = sequence.x[i, j], sequence.mask[i, j]
      else:
        table = np.asarray(params["positions"]["table"])
        expected[i, p] = np.asarray(params["mask_token"]) + table[p]
  np.testing.assert_allclose(got.content, expected, rtol=1e-6)
  np.testing.assert_array_equal(got.content_mask, mask)
  np.testing.assert_array_equal(
    got.x[:, :num_prefix], sequence.x[:, :num_prefix]
  )


def test_a_restored_sequence_can_be_indexed_by_position(randomized):
  sequence = _sequence(1)
  params = randomized(Restore(), sequence)
  got = Restore().apply({"params": params}, sequence)
  np.testing.assert_array_equal(
    got.take(jnp.asarray(VISIBLE)), sequence.content
  )


def test_parameters_are_a_token_and_a_row_for_each_position():
  sequence = _sequence(1)
  boxed = jax.eval_shape(lambda: Restore().init(KEY, sequence))["params"]
  assert trees.num_params(boxed) == D + NUM * D
  assert boxed["mask_token"].names == (axes.EMBED,)
  assert boxed["positions"]["table"].names == (axes.POSITION, axes.EMBED)


def test_the_gradient_reaches_every_token_once(randomized):
  sequence = _sequence(1)
  params = randomized(Restore(), sequence)

  def total(params, x):
    restored = Restore().apply({"params": params}, sequence.replace(x=x))
    return jnp.sum(restored.x)

  grads, grad_x = jax.grad(total, argnums=(0, 1))(params, sequence.x)
  np.testing.assert_array_equal(grad_x, 1.0)
  np.testing.assert_array_equal(grads["mask_token"], 4.0)  # Two a row.
  # How many rows hide each position: 1 and 4 in the first, 2 and 3 then.
  np.testing.assert_array_equal(
    grads["positions"]["table"], np.outer([0, 1, 1, 1, 1], np.ones(D))
  )


def test_what_is_filled_in_counts_where_anything_does(randomized):
  sequence = _sequence(1)
  params = randomized(Restore(), sequence)
  absent = sequence.replace(mask=sequence.mask.at[0].set(False))
  got = Restore().apply({"params": params}, absent)
  np.testing.assert_array_equal(got.mask[0], False)
  # Of the other example, only the token of position 4 does not count.
  np.testing.assert_array_equal(got.mask[1], [True] * 5 + [False])


def test_kept_tokens_too_may_get_their_positions(randomized):
  sequence = _sequence(num_prefix=1)
  params = randomized(Restore(), sequence)
  some, all_ = (
    Restore(everywhere=everywhere).apply({"params": params}, sequence)
    for everywhere in (False, True)
  )
  table = np.asarray(params["positions"]["table"])
  added = np.zeros((2, NUM, D), np.float32)
  for i in range(2):
    added[i, VISIBLE[i]] = table[VISIBLE[i]]
  np.testing.assert_allclose(all_.content, some.content + added, rtol=1e-6)
  np.testing.assert_array_equal(all_.x[:, :1], some.x[:, :1])
