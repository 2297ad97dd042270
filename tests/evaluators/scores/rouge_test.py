import itertools

import pytest

from mmjax.evaluators.scores import rouge


def longest_by_trying(a, b):
  """The longest of all subsequences of `a` that `b` holds too."""

  def holds(words, part):
    rest = iter(words)
    return all(word in rest for word in part)

  for length in range(len(a), 0, -1):
    if any(holds(b, part) for part in itertools.combinations(a, length)):
      return length
  return 0


def test_the_longest_common_sequence_is_found(rng):
  for _ in range(40):
    a, b = (list(rng.choice(list("abcd"), rng.integers(0, 8))) for _ in "ab")
    assert rouge.longest_common(a, b) == longest_by_trying(a, b)


# F-measures of the package rouge-score 0.1.2, without a stemmer.
@pytest.mark.parametrize(
  ("said", "right", "expected"),
  [
    ("the cat sat on the mat", "the cat is on a mat", 2 / 3),
    (
      "a large red bus parked outside",
      "the bus is parked in the street",
      0.30769230769230765,
    ),
    ("police killed the gunman", "the gunman killed police", 0.5),
  ],
)
def test_it_is_that_of_another_implementation(said, right, expected):
  got = rouge.rouge_l(said.split(), [right.split()], beta=1.0)
  assert got == pytest.approx(expected, abs=1e-6)


def test_of_several_references_the_best_precision_and_recall_count():
  said = "a b c d".split()
  references = ["a b".split(), "a b c x y z v w".split()]
  # Precision 3/4 by the second, recall 2/2 by the first; beta^2 = 1.44.
  expected = 2.44 * 0.75 * 1.0 / (1.0 + 1.44 * 0.75)
  assert rouge.rouge_l(said, references) == pytest.approx(expected)


@pytest.mark.parametrize("said", ["", "z z"])
def test_nothing_in_common_scores_zero(said):
  assert rouge.rouge_l(said.split(), [["a", "b"]]) == 0.0


def test_of_several_references_it_is_that_of_coco():
  # Rouge scores of COCO's evaluation code, pycocoevalcap 1.2.
  references = [
    ["a red circle on white", "the red circle"],
    ["a blue square on white", "one blue square at the top"],
    ["a red triangle"],
  ]
  candidates = [
    "a red red circle on white",
    "blue square",
    "a green triangle at the top",
  ]
  got = [
    rouge.rouge_l(said.split(), [text.split() for text in own])
    for said, own in zip(candidates, references, strict=True)
  ]
  assert got == pytest.approx([0.92424242, 0.53043478, 0.47286822], abs=1e-6)
