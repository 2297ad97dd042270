import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.generate import decoding
from mmjax.generate.settings import GenerationSettings

ROOM, EOS = 10, 1
PROMPTS = ([2, 3], [2, 4, 5, 3], [2], [2, 6, 6])


@pytest.fixture(scope="module")
def model(toy):
  return toy(7)


@pytest.fixture(scope="module")
def said(model):
  """`said(prompts, limits, steps, settings)`: the ids of each row."""

  @functools.cache
  def compiled(settings):
    return jax.jit(
      lambda texts, limits, steps: decoding.advance(
        model.step, texts, limits, steps, settings, ends=(EOS,), never=(0,)
      )
    )

  def run(prompts, limits=None, steps=ROOM, **settings):
    limits = jnp.asarray(limits or [ROOM] * len(prompts))
    settings = GenerationSettings(**settings)
    texts = model.start(prompts, ROOM)
    texts = compiled(settings)(texts, limits, steps)
    starts = np.array([len(p) for p in prompts])
    ids = decoding.said(
      np.asarray(texts.tokens), np.asarray(texts.lengths), starts
    )
    return ids, np.asarray(texts.ended)

  return run


def _greedy(model, prompt, limit, penalty=1.0):
  ids = list(prompt)
  while len(ids) < limit:
    logits = model.logits(ids)
    for token in set(ids) if penalty != 1.0 else ():
      logits[token] *= penalty if logits[token] < 0 else 1 / penalty
    logits[0] = -np.inf
    ids.append(int(np.argmax(logits)))
    if ids[-1] == EOS:
      break
  return ids[len(prompt) :]


def test_greedy_equals_a_loop_over_each_text_alone(said, model):
  got, ended = said(PROMPTS)

  expected = [_greedy(model, p, ROOM) for p in PROMPTS]
  assert got == expected
  assert ended.all()
  # Some end by themselves, some are cut.
  assert {ids[-1] == EOS for ids in expected} == {True, False}


def test_a_text_ends_at_its_own_limit(said, model):
  limits = [3, 6, 4, 10]

  got, _ = said(PROMPTS, limits)

  assert got == [
    _greedy(model, p, limit) for p, limit in zip(PROMPTS, limits, strict=True)
  ]


def test_repetition_penalty_knows_the_prompt_and_what_was_said(said, model):
  got, _ = said(PROMPTS, repetition_penalty=3.0)

  expected = [_greedy(model, p, ROOM, 3.0) for p in PROMPTS]
  assert got == expected
  assert expected != [_greedy(model, p, ROOM) for p in PROMPTS]


def test_steps_may_be_taken_a_few_at_a_time(said):
  some, ended = said(PROMPTS, steps=2)

  whole, _ = said(PROMPTS)
  assert some == [ids[:2] for ids in whole]
  assert not ended.all()


def test_a_row_draws_the_same_whatever_the_others_are(said):
  options = dict(strategy="sample", seed=3)
  one, _ = said(PROMPTS, **options)

  again, _ = said(PROMPTS, **options)
  two, _ = said(([2, 5], PROMPTS[1], [2, 2, 2, 2, 2], PROMPTS[3]), **options)

  assert one == again
  assert (one[1], one[3]) == (two[1], two[3])
  assert one != said(PROMPTS, strategy="sample", seed=4)[0]


def test_equal_prompts_draw_texts_of_their_own(said):
  got, _ = said([[2, 3]] * 4, strategy="sample")

  assert len({tuple(ids) for ids in got}) == 4


@pytest.mark.parametrize(
  ("length", "most", "expected"),
  [(1, 64, 8), (8, 64, 8), (9, 64, 16), (33, 64, 64), (40, 48, 48), (3, 5, 5)],
)
def test_buckets_are_powers_of_two_within_the_context(length, most, expected):
  assert decoding.bucket(length, most) == expected
