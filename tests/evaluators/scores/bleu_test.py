import importlib.util
import math
from collections import Counter

import pytest

from mmjax.core import errors
from mmjax.evaluators.scores import bleu

CANDIDATES = [
  "the cat sat on the mat today".split(),
  "a dog".split(),
  "two birds fly over a lake at night".split(),
]
REFERENCES = [
  ["the cat sat on the mat".split(), "a cat is on the mat today".split()],
  ["a small dog runs".split()],
  ["some birds fly over a lake".split(), "two birds at night".split()],
]


def by_formula(candidates, references):
  """Papineni et al. 2002, eq. 1 to 3, with the reference nearest in length."""
  said = sum(map(len, candidates))
  wanted = sum(
    min((abs(len(r) - len(c)), len(r)) for r in own)[1]
    for c, own in zip(candidates, references, strict=True)
  )
  logs = 0.0
  for n in range(1, 5):
    clipped = total = 0

    def grams(words, n=n):
      return Counter(zip(*(words[i:] for i in range(n)), strict=False))

    for candidate, own in zip(candidates, references, strict=True):
      most = Counter()
      for reference in own:
        most |= grams(reference)
      mine = grams(candidate)
      clipped += sum((mine & most).values())
      total += sum(mine.values())
    logs += math.log(clipped / total) / 4
  brevity = min(1.0, math.exp(1 - wanted / said))
  return brevity * math.exp(logs)


def test_bleu_is_that_of_the_formula():
  assert bleu.bleu4(CANDIDATES, REFERENCES) == pytest.approx(
    by_formula(CANDIDATES, REFERENCES), abs=1e-6
  )


def test_short_texts_pay_for_brevity():
  candidates = ["the cat sat on".split()]
  references = ["the cat sat on the mat".split()]
  # All n-grams are right; exp(1 - 6 / 4).
  assert bleu.bleu4([candidates[0]], [[references[0]]]) == pytest.approx(
    math.exp(-0.5), abs=1e-6
  )


def test_without_four_right_words_in_a_row_it_is_zero():
  assert bleu.bleu4(["a b c".split(), []], [["a b c".split()], [["d"]]]) == 0.0


def test_a_missing_library_is_said_with_what_to_install(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(errors.UserError, match=r"mmjax\[metrics\]"):
    bleu.check_installed()
