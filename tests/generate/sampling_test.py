import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.generate import sampling

PROBS = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
NUM_DRAWS = 20_000
# The value that a chi-squared variable of 5, 2 and 3 degrees of freedom
# exceeds once in 1000 times, from tables.
CRITICAL = {5: 20.515, 3: 16.266, 2: 13.816}


def _logits(rows=1):
  # Any constant may be added to logits.
  return jnp.tile(jnp.asarray(np.log(PROBS) + 3.0, jnp.float32), (rows, 1))


def _chi_squared(tokens, expected):
  """Of the tokens that may come; none of the others came."""
  counts = np.bincount(np.asarray(tokens), minlength=len(expected))
  assert counts[expected == 0].sum() == 0
  expected = expected * len(tokens)
  seen = expected > 0
  return np.sum((counts[seen] - expected[seen]) ** 2 / expected[seen])


def _truncated(keep):
  probs = np.where(np.arange(len(PROBS)) < keep, PROBS, 0)
  return probs / probs.sum()


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({}, PROBS),
    (dict(temperature=2.0), PROBS**0.5 / np.sum(PROBS**0.5)),
    (dict(top_k=3), _truncated(3)),
    # 0.4 + 0.25 + 0.15 = 0.8 is not yet 0.85: the fourth is needed.
    (dict(top_p=0.85), _truncated(4)),
  ],
  ids=["all", "temperature", "top_k", "top_p"],
)
def test_frequencies_are_those_of_the_softmax(options, expected):
  keys = jax.random.split(jax.random.key(1), NUM_DRAWS)

  tokens = sampling.draw(_logits(NUM_DRAWS), keys, **options)

  freedom = np.count_nonzero(expected) - 1
  assert _chi_squared(tokens, expected) < CRITICAL[freedom]


def test_top_p_counts_what_top_k_left():
  # Of the first three, 0.4 / 0.8 is half: with p = 0.5 it is enough.
  keys = jax.random.split(jax.random.key(2), 200)

  tokens = sampling.draw(_logits(200), keys, top_k=3, top_p=0.499)

  assert set(np.asarray(tokens).tolist()) == {0}


def test_top_p_equals_a_loop_over_sorted_tokens(rng):
  logits = rng.normal(size=(4, 9)).astype(np.float32)

  got = np.asarray(sampling.keep_top_p(jnp.asarray(logits), 0.7))

  for row, kept in zip(logits.astype(np.float64), got, strict=True):
    probs = np.exp(row) / np.exp(row).sum()
    total, expected = 0.0, []
    for token in np.argsort(-probs):
      if total >= 0.7:
        break
      expected.append(token)
      total += probs[token]
    assert sorted(expected) == np.flatnonzero(np.isfinite(kept)).tolist()
    np.testing.assert_array_equal(kept[expected], row[expected].astype("f4"))


def test_top_p_keeps_the_first_of_equal_tokens_only():
  got = sampling.keep_top_p(jnp.zeros((1, 4)), 0.5)

  np.testing.assert_array_equal(np.isfinite(got), [[True, True, False, False]])


def test_top_k_of_more_than_there_are_keeps_all():
  np.testing.assert_array_equal(sampling.keep_top_k(_logits(), 100), _logits())


def test_a_penalty_lowers_what_was_seen_whatever_its_sign():
  logits = jnp.asarray([[2.0, -2.0, 2.0, -2.0]])
  seen = jnp.asarray([[True, True, False, False]])

  got = sampling.penalize(logits, seen, 4.0)

  np.testing.assert_allclose(got, [[0.5, -8.0, 2.0, -2.0]])


def test_seen_tokens_are_those_of_each_text():
  got = sampling.seen_tokens(jnp.asarray([[3, 1, 1], [0, 0, 2]]), 4)

  np.testing.assert_array_equal(
    got, [[False, True, False, True], [True, False, True, False]]
  )


def test_what_is_forbidden_never_comes():
  keys = jax.random.split(jax.random.key(3), 300)
  logits = sampling.forbid(_logits(300), (0, 1))

  tokens = np.asarray(sampling.draw(logits, keys))

  assert tokens.min() == 2


def test_a_draw_depends_on_its_own_key_and_logits_only():
  keys = jax.random.split(jax.random.key(4), 3)
  one = sampling.draw(_logits(3), keys)

  others = _logits(3).at[0].set(jnp.arange(6.0))
  two = sampling.draw(others, keys.at[0].set(jax.random.key(9)))

  np.testing.assert_array_equal(one[1:], two[1:])
