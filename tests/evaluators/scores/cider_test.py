import math

import numpy as np

from mmjax.evaluators.scores import cider

REFERENCES = [
  ["a red circle on white".split(), "the red circle".split()],
  ["a blue square on white".split(), "one blue square at the top".split()],
  ["a red triangle".split()],
]
CANDIDATES = [
  "a red red circle on white".split(),
  "blue square".split(),
  "a green triangle at the top".split(),
]


def by_formula(candidate, own, every):
  """Vedantam et al. 2015, eq. 1 and 4, over the list of all n-grams."""

  def grams(words, n):
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]

  total = 0.0
  for n in range(1, 5):
    known = {g for refs in every for r in refs for g in grams(r, n)}
    vocabulary = sorted(known | set(grams(candidate, n)))

    def vector(words, n=n, vocabulary=vocabulary):
      return np.array(
        [
          grams(words, n).count(gram)
          * math.log(
            len(every)
            / max(1, sum(any(gram in grams(r, n) for r in s) for s in every))
          )
          for gram in vocabulary
        ]
      )

    said = vector(candidate)
    for reference in own:
      right = vector(reference)
      norms = np.linalg.norm(said) * np.linalg.norm(right)
      if norms:
        clipped = np.minimum(said, right) @ right / norms
        gap = len(candidate) - len(reference)
        total += 10 * clipped * math.exp(-(gap**2) / 72) / len(own) / 4
  return total


def test_it_is_that_of_the_formula():
  got = cider.cider_d(CANDIDATES, REFERENCES)
  expected = [
    by_formula(said, own, REFERENCES)
    for said, own in zip(CANDIDATES, REFERENCES, strict=True)
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-9)
  assert got.min() > 0


def test_it_is_that_of_another_implementation():
  # CiderD scores of COCO's evaluation code, pycocoevalcap 1.2.
  np.testing.assert_allclose(
    cider.cider_d(CANDIDATES, REFERENCES),
    [4.58306669, 2.73000482, 1.01770501],
    atol=1e-6,
  )


def test_a_right_word_alone_is_a_quarter_of_ten():
  got = cider.cider_d([["cat"], ["dog"]], [[["cat"]], [["dog"]]])
  np.testing.assert_allclose(got, [2.5, 2.5])


def test_nothing_said_scores_zero():
  np.testing.assert_array_equal(
    cider.cider_d([[], ["dog"]], [[["cat"]], [["bird"]]]), [0.0, 0.0]
  )
