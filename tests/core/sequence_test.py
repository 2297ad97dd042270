import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.sequence import Sequence, complement, membership


def _distinct(rng, rows, k, length):
  return np.stack([rng.permutation(length)[:k] for _ in range(rows)]).astype(
    np.int32
  )


@pytest.fixture
def arrays(rng):
  x = rng.normal(size=(3, 2 + 6, 4)).astype(np.float32)
  mask = rng.random((3, 2 + 6)) < 0.7
  return x, mask


@pytest.fixture
def sequence(arrays):
  x, mask = arrays
  return Sequence(
    jnp.asarray(x), jnp.asarray(mask), num_prefix=2, num_content=6
  )


def test_take_gathers_content_tokens_after_the_prefix(arrays, sequence, rng):
  x, _ = arrays
  indices = rng.integers(0, 6, (3, 5)).astype(np.int32)  # With repetitions.
  got = sequence.take(jnp.asarray(indices))
  for row in range(3):
    for column in range(5):
      np.testing.assert_array_equal(
        got[row, column], x[row, 2 + indices[row, column]]
      )


def test_take_refuses_a_sequence_with_dropped_tokens(sequence):
  dropped = sequence.replace(positions=jnp.zeros((3, 6), jnp.int32))
  with pytest.raises(ValueError, match="dropped tokens.*hidden='replace'"):
    dropped.take(jnp.zeros((3, 1), jnp.int32))


def test_content_leaves_the_prefix_out(arrays, sequence):
  x, mask = arrays
  np.testing.assert_array_equal(sequence.content, x[:, 2:])
  np.testing.assert_array_equal(sequence.content_mask, mask[:, 2:])


@pytest.mark.parametrize("k", [0, 1, 4, 9])
def test_complement_lists_what_is_left_in_order(rng, k):
  hidden = _distinct(rng, 5, k, 9)
  got = complement(jnp.asarray(hidden), 9)
  assert got.shape == (5, 9 - k)
  for row in range(5):
    np.testing.assert_array_equal(
      got[row], np.setdiff1d(np.arange(9), hidden[row])
    )


def test_membership_says_which_positions_are_hidden(rng):
  hidden = _distinct(rng, 4, 3, 7)
  got = membership(jnp.asarray(hidden), 7)
  for row in range(4):
    np.testing.assert_array_equal(got[row], np.isin(np.arange(7), hidden[row]))
