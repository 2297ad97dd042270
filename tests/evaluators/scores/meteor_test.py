import itertools

import pytest

from mmjax.evaluators.scores import meteor


def test_one_run_of_six_words():
  words = "the cat sat on the mat".split()
  assert meteor.meteor(words, [words]) == pytest.approx(1 - 0.5 / 6**3)


def test_disorder_costs_by_its_runs():
  # "on the mat" and "sat" and "the cat": 3 runs, 6 matches, all matched.
  got = meteor.meteor(
    "on the mat sat the cat".split(), ["the cat sat on the mat".split()]
  )
  assert got == pytest.approx(1 - 0.5 * (3 / 6) ** 3)


def test_recall_weighs_nine_times_as_much():
  # 2 matches in one run; precision 2/2, recall 2/4.
  mean = 10 * 1.0 * 0.5 / (0.5 + 9 * 1.0)
  got = meteor.meteor("the cat".split(), ["the cat sat down".split()])
  assert got == pytest.approx(mean * (1 - 0.5 * (1 / 2) ** 3))


def test_the_best_reference_counts():
  right, wrong = "a b".split(), "x y".split()
  assert meteor.meteor(right, [wrong, right]) == meteor.meteor(right, [right])
  assert meteor.meteor(right, [wrong]) == 0.0
  assert meteor.meteor([], [right]) == 0.0


def by_trying(a, b):
  """Most matches, then fewest runs, of all alignments of two texts."""
  best = 0, 0
  size = len(a)
  for places in itertools.product([None, *range(len(b))], repeat=size):
    used = [j for j in places if j is not None]
    pairs = [(i, j) for i, j in enumerate(places) if j is not None]
    if len(set(used)) < len(used) or any(a[i] != b[j] for i, j in pairs):
      continue
    runs = sum((i - 1, j - 1) not in pairs for i, j in pairs)
    best = max(best, (len(pairs), -runs))
  return best


def test_runs_are_the_fewest_of_most_matches(rng):
  for _ in range(25):
    # Words are repeated in one of the texts at most.
    a = list(rng.choice(list("abcde"), 4))
    b = list(rng.permutation(list("abcde"))[: rng.integers(1, 6)])
    runs = meteor.aligned_runs(a, b)
    assert (sum(runs), -len(runs)) == by_trying(a, b), (a, b)
