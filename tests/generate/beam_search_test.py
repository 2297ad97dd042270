import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.generate import beam_search
from mmjax.generate.settings import GenerationSettings

ROOM, EOS, MORE = 6, 1, 3
PROMPTS = ([2, 3], [2], [2, 0, 3])
LIMITS = [5, 4, 5]  # At most 3, 3 and 2 tokens are said.


@pytest.fixture(scope="module")
def model(toy):
  return toy(4)


@pytest.fixture(scope="module")
def search(model):
  """`search(**settings)`: texts and scores of each row, the best first."""

  @functools.cache
  def compiled(settings, num_best):
    return jax.jit(
      lambda texts, limits: beam_search.search(
        model.step, texts, limits, settings, ends=(EOS,), num_best=num_best
      )
    )

  def run(num_best=1, prompts=PROMPTS, limits=LIMITS, **options):
    settings = GenerationSettings(strategy="beam", **options)
    found = compiled(settings, num_best)(
      model.start(prompts, ROOM), jnp.asarray(limits)
    )
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    scores = np.asarray(found.scores)
    texts = [
      [
        tokens[i, j, len(p) : lengths[i, j]].tolist()
        for j in range(num_best)
        if np.isfinite(scores[i, j])
      ]
      for i, p in enumerate(prompts)
    ]
    return texts, scores

  return run


def _exhaustive(model, prompt, limit, alpha):
  """All texts that end, or are cut, with their scores, the best first."""
  most, found = limit - len(prompt), []
  for length in range(1, most + 1):
    for ids in itertools.product(range(model.vocab_size), repeat=length):
      if EOS in ids[:-1] or (ids[-1] != EOS and length < most):
        continue
      total = sum(
        model.log_probs([*prompt, *ids[:i]])[token]
        for i, token in enumerate(ids)
      )
      found.append((total / ((5 + length) / 6) ** alpha, list(ids)))
  return sorted(found, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 2.0])
def test_a_wide_search_equals_an_exhaustive_one(search, model, alpha):
  texts, scores = search(
    num_best=5, beam_size=model.vocab_size**MORE, length_penalty=alpha
  )

  for i, (prompt, limit) in enumerate(zip(PROMPTS, LIMITS, strict=True)):
    expected = _exhaustive(model, prompt, limit, alpha)[:5]
    assert texts[i] == [ids for _, ids in expected]
    np.testing.assert_allclose(
      scores[i], [score for score, _ in expected], rtol=1e-5
    )


def test_a_length_penalty_favours_longer_texts(model):
  def mean_length(alpha):
    best = [
      len(ids)
      for prompt, limit in zip(PROMPTS, LIMITS, strict=True)
      for _, ids in _exhaustive(model, prompt, limit, alpha)[:5]
    ]
    return np.mean(best)

  # So that the test above tells one penalty from the other.
  assert mean_length(2.0) > mean_length(0.0)


def _by_loops(model, prompt, limit, size):
  """Keeps `size` texts of each length; sums, without a length penalty."""
  alive, found = [(0.0, [])], []
  for _ in range(limit - len(prompt)):
    more = []
    for total, ids in alive:
      log_probs = model.log_probs([*prompt, *ids])
      for token in range(model.vocab_size):
        longer = total + log_probs[token], [*ids, token]
        (found if token == EOS else more).append(longer)
    alive = sorted(more, reverse=True)[:size]
  return max(found + alive)


def test_a_narrow_search_keeps_the_best_of_each_length(search, model):
  texts, scores = search(beam_size=2, length_penalty=0.0)

  for i, (prompt, limit) in enumerate(zip(PROMPTS, LIMITS, strict=True)):
    score, ids = _by_loops(model, prompt, limit, 2)
    assert texts[i] == [ids]
    np.testing.assert_allclose(scores[i], [score], rtol=1e-5)


def test_fewer_texts_than_wanted_are_told_apart(search):
  # One token may be said: 4 texts in all.
  texts, scores = search(num_best=5, prompts=([2, 3],), limits=[3], beam_size=8)

  assert sorted(texts[0]) == [[0], [1], [2], [3]]
  assert scores[0, 4] == -np.inf


def test_rows_of_scanned_layers_are_on_the_second_axis():
  keys = jnp.arange(2 * 3 * 4).reshape(2, 3, 4, 1, 1)  # layers b m k d
  cache = {
    "a": {"keys": keys, "values": keys[0]},
    "given_mask": keys[0, :, :, 0],
  }

  got = beam_search.take_rows(cache, jnp.asarray([2, 0, 0, 1]))

  np.testing.assert_array_equal(got["a"]["keys"], keys[:, [2, 0, 0, 1]])
  np.testing.assert_array_equal(got["a"]["values"], keys[0, [2, 0, 0, 1]])
  np.testing.assert_array_equal(got["given_mask"], keys[0, [2, 0, 0, 1], :, 0])
