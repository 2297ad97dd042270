import itertools

import pytest

from mmjax.evaluators.scores import answers


@pytest.mark.parametrize(
  ("answer", "expected"),
  [
    ("The Cat", "cat"),
    ("an apple", "apple"),
    ("two dogs", "2 dogs"),
    ("none", "0"),
    ("dont know", "don't know"),
    ("Its 5:30 o'clock.", "its 5:30 o'clock"),
    ("black/white", "black white"),
    ("black / white", "black white"),
    ("red, blue", "red blue"),
    ("t-shirt", "t shirt"),
    ("1,000", "1000"),
    ("1,000 - 2,000", "1000 2000"),
    ("3.5", "3.5"),
    ("U.S.", "us"),
    (" yes\n", "yes"),
    ("Yes!", "yes"),
  ],
)
def test_what_makes_no_difference_goes(answer, expected):
  assert answers.normalized(answer) == expected


def by_subsets(said, people):
  """The mean over all nine of ten people of min(agreeing / 3, 1)."""
  parts = list(itertools.combinations(people, len(people) - 1))
  return sum(min(part.count(said) / 3, 1) for part in parts) / len(parts)


@pytest.mark.parametrize("agreeing", range(11))
def test_ten_answers_give_the_official_score(agreeing):
  people = ["yes"] * agreeing + ["no"] * (10 - agreeing)
  assert answers.score("Yes.", people) == pytest.approx(
    by_subsets("yes", people)
  )


@pytest.mark.parametrize(
  ("people", "expected"),
  [
    (["yes"], 1.0),
    (["no"], 0.0),
    (["yes", "yes"], 1.0),
    (["yes", "yes", "yes"], 1.0),
    # Without either of the others, one of two agrees; without oneself, none.
    (["yes", "no", "no"], 1 / 3),
  ],
)
def test_fewer_answers_can_reach_one(people, expected):
  assert answers.score("yes", people) == pytest.approx(expected)
