import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from mmjax.core import errors
from mmjax.generate import masked_decoding

N, V = 6, 5
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture
def logits(rng):
  """Of each position, whatever else is known."""
  return jnp.asarray(rng.normal(size=(3, N, V)), jnp.float32)


def decode(logits_of, keys=KEYS, num_tokens=N, **settings):
  return masked_decoding.decode(logits_of, keys, num_tokens, **settings)


@pytest.mark.parametrize(
  "num_tokens, num_steps, expected",
  [
    # 64 times the cosine of 11.25, 22.5, .. degrees: 62.8, 59.1, 53.2, ..
    (64, 8, (63, 60, 54, 46, 36, 25, 13, 0)),
    (64, 3, (56, 32, 0)),  # Of 30 and 60 degrees: 55.4, and 32 exactly.
    (9, 1, (0,)),
    (5, 5, (4, 3, 2, 1, 0)),  # The cosine alone: 5, 5, 3, 2, 0.
    (4, 3, (3, 2, 0)),  # Here 4, 2, 0.
  ],
)
def test_what_is_unknown_follows_the_cosine(num_tokens, num_steps, expected):
  counts = masked_decoding.unknown_counts(num_tokens, num_steps)
  assert counts == expected


@pytest.mark.parametrize("num_steps", [0, 7])
def test_each_step_has_a_code_to_decide(num_steps):
  with pytest.raises(errors.UserError, match=f"steps={num_steps}, .* 1 to 6"):
    masked_decoding.unknown_counts(6, num_steps)


def test_every_code_is_decided_once_and_as_many_as_the_schedule_says(logits):
  decoded = decode(lambda codes, unknown: logits, num_steps=3)
  counts = masked_decoding.unknown_counts(N, 3)
  expected = -np.diff([N, *counts])
  for row in np.asarray(decoded.steps):
    np.testing.assert_array_equal(np.bincount(row, minlength=3), expected)


def test_the_model_sees_what_is_decided_which_never_changes(logits):
  seen = []

  def logits_of(codes, unknown):
    seen.append((np.asarray(codes), np.asarray(unknown)))
    return logits

  with jax.disable_jit():
    decoded = decode(logits_of, num_steps=4)
  assert len(seen) == 4
  for step, (codes, unknown) in enumerate(seen):
    np.testing.assert_array_equal(unknown, decoded.steps >= step)
    np.testing.assert_array_equal(codes, np.where(unknown, 0, decoded.codes))


@pytest.mark.parametrize("num_steps", [1, 4, N])
def test_a_model_that_is_certain_is_followed_in_any_number_of_steps(
  rng, num_steps
):
  wanted = rng.integers(0, V, (3, N))
  certain = jnp.asarray(1e3 * np.eye(V)[wanted], jnp.float32)
  decoded = decode(lambda codes, unknown: certain, num_steps=num_steps)
  np.testing.assert_array_equal(decoded.codes, wanted)


def test_at_temperature_zero_the_most_likely_codes_are_drawn(logits):
  decoded = decode(lambda codes, unknown: logits, num_steps=1, temperature=0.0)
  np.testing.assert_array_equal(decoded.codes, np.argmax(logits, axis=-1))
  again = decode(
    lambda codes, unknown: logits,
    num_steps=2,
    temperature=0.0,
    choice_temperature=0.0,
  )
  # Kept first is what is most likely.
  best = scipy.special.log_softmax(np.asarray(logits, np.float64), -1).max(-1)
  first = masked_decoding.unknown_counts(N, 2)[0]
  for row, sure in zip(np.asarray(again.steps), best, strict=True):
    assert set(np.flatnonzero(row == 0)) == set(np.argsort(-sure)[: N - first])


def test_a_key_gives_the_same_codes_whatever_else_is_drawn(logits):
  run = functools.partial(decode, num_steps=3)
  all_three = run(lambda codes, unknown: logits).codes
  alone = run(lambda codes, unknown: logits[1:2], KEYS[1:2]).codes
  np.testing.assert_array_equal(alone[0], all_three[1])
  same = jnp.broadcast_to(logits[:1], logits.shape)
  rows = np.asarray(run(lambda codes, unknown: same).codes)
  assert len({row.tobytes() for row in rows}) == 3


# The joint distribution of two codes in two steps, by hand.

TRIALS = 8192
FIRST = np.array([[1.0, 0.2, -0.5], [0.4, -0.3, 0.9]])  # Logits, position code.
# What is added to a position's logits when the other has this code.
EFFECT = np.array([[0.0, 1.5, -1.0], [1.0, -2.0, 0.5], [-0.7, 0.0, 0.8]])


def logits_of_two(codes, unknown):
  other = codes[:, ::-1]
  known = ~unknown[:, ::-1]
  effect = jnp.asarray(EFFECT)[other] * known[:, :, None]
  return jnp.asarray(FIRST)[None] + effect


def joint(temperature, choice_temperature):
  """Sums over what is drawn first, what is kept, what is drawn again."""
  first = scipy.special.log_softmax(FIRST / temperature, axis=1)
  table = np.zeros((3, 3))
  noise = choice_temperature * (1 - 1 / 2)
  for a in range(3):
    for b in range(3):
      gap = first[0, a] - first[1, b]
      # The difference of two Gumbel variables is logistic.
      keeps_a = 0.5 if np.isinf(noise) else float(gap > 0)
      if 0 < noise < np.inf:
        keeps_a = scipy.special.expit(gap / noise)
      weight = np.exp(first[0, a] + first[1, b])
      after_a = scipy.special.softmax((FIRST[1] + EFFECT[a]) / temperature)
      after_b = scipy.special.softmax((FIRST[0] + EFFECT[b]) / temperature)
      table[a, :] += weight * keeps_a * after_a
      table[:, b] += weight * (1 - keeps_a) * after_b
  return table


@pytest.mark.parametrize(
  "temperature, choice_temperature",
  [(1.0, 0.0), (1.0, 3.0), (1.0, np.inf), (0.7, 1.0)],
)
def test_draws_have_the_probability_that_was_worked_out(
  temperature, choice_temperature
):
  keys = jax.random.split(jax.random.key(1), TRIALS)
  decoded = decode(
    logits_of_two,
    keys,
    2,
    num_steps=2,
    temperature=temperature,
    choice_temperature=choice_temperature,
  )
  a, b = np.asarray(decoded.codes).T
  counts = np.bincount(3 * a + b, minlength=9)
  expected = joint(temperature, choice_temperature).ravel()
  np.testing.assert_allclose(expected.sum(), 1.0)
  assert scipy.stats.chisquare(counts, TRIALS * expected).pvalue > 1e-3
  # The test can tell: random choice is another distribution.
  other = joint(temperature, 3.0 if np.isinf(choice_temperature) else np.inf)
  assert scipy.stats.chisquare(counts, TRIALS * other.ravel()).pvalue < 1e-3


def test_random_choice_keeps_the_probability_of_independent_codes(logits):
  rows = jnp.broadcast_to(logits[:1, :3], (TRIALS, 3, V))
  decoded = decode(
    lambda codes, unknown: rows,
    jax.random.split(jax.random.key(2), TRIALS),
    3,
    num_steps=3,
    choice_temperature=np.inf,
  )
  for position, row in enumerate(np.asarray(logits[0, :3], np.float64)):
    counts = np.bincount(decoded.codes[:, position], minlength=V)
    expected = TRIALS * scipy.special.softmax(row)
    assert scipy.stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("name", ["temperature", "choice_temperature"])
def test_a_temperature_below_zero_is_refused(logits, name):
  with pytest.raises(errors.UserError, match=f"^{name}=-1.0, expected 0 or"):
    decode(lambda codes, unknown: logits, **{name: -1.0}, num_steps=1)
