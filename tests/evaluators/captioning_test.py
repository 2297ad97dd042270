import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators.captioning import Captioning
from mmjax.evaluators.scores import bleu, cider, rouge

SAID = ["a red circle.", "A blue square", "a red circle", "one star at the top"]
RIGHT = [
  "the red circle|a red circle",
  "a blue square on top",
  "a green cross",
  "one star at the top",
]


def no_predict(params, fn, batch):
  raise AssertionError("What is generated is not asked of the model here.")


class Says:
  """Says what the batch holds, and counts its calls."""

  def __init__(self):
    self.calls = 0

  def __call__(self, params, batch):
    self.calls += 1
    return [str(text) for text in batch["says"]]

  def choose(self, params, batch, answers):
    raise AssertionError("Captions are not picked from a list.")


@pytest.fixture
def columns():
  return {
    "says": np.array(SAID, object),
    "right": np.array(RIGHT, object),
    "image": np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3),
  }


@pytest.fixture
def make(fake, letters):
  def made(columns, says=None, **options):
    return Captioning(
      batches=fake.batched(columns, 3),
      tokenizer=letters,
      generate=says or Says(),
      **{"text": "right", **options},
    )

  return made


def _words(texts):
  return [text.lower().strip(".").split() for text in texts]


def test_scores_are_of_every_real_example_once(make, columns):
  got = dict(make(columns).run(no_predict, {}))
  said = _words(SAID)
  right = [_words(text.split("|")) for text in RIGHT]
  assert got["exact_match"] == pytest.approx(2 / 4)
  assert got["num_words"] == pytest.approx((3 + 3 + 3 + 5) / 4)
  assert got["distinct"] == pytest.approx(3 / 4)
  assert got["bleu4"] == pytest.approx(bleu.bleu4(said, right))
  assert got["cider_d"] == pytest.approx(cider.cider_d(said, right).mean())
  assert got["rouge_l"] == pytest.approx(
    np.mean([rouge.rouge_l(a, b) for a, b in zip(said, right, strict=True)])
  )


def test_examples_of_one_group_share_their_references(make, columns):
  whole = dict(make(columns).run(no_predict, {}))
  # One reference an example; those of a picture stand apart in the split.
  rows = [0, 1, 2, 0, 3]
  right = [
    RIGHT[0].split("|")[0],
    *RIGHT[1:3],
    RIGHT[0].split("|")[1],
    RIGHT[3],
  ]
  apart = {
    "says": columns["says"][rows],
    "image": columns["image"][rows],
    "right": np.array(right, object),
    "picture": np.array(["p", "q", "r", "p", "s"], object),
  }
  says = Says()
  got = dict(make(apart, says, group="picture").run(no_predict, {}))
  assert got == pytest.approx(whole)
  assert says.calls == 2  # Of four pictures, in batches of three.


def test_references_may_be_token_ids(make, columns):
  columns["text"] = np.array([[5], [6], [7], [8]], np.int32)
  columns["says"] = np.array(["a", "b", "x", "A."], object)
  got = dict(
    make(columns, text="text", metrics=("exact_match",)).run(no_predict, {})
  )
  assert got["exact_match"] == pytest.approx(2 / 4)
  assert "bleu4" not in got


def test_samples_are_shown_with_what_is_right(make, columns):
  (artifact,) = make(columns, num_shown=2).pictures(no_predict, {})
  assert artifact.data["captions"] == [
    "a red circle. (right: the red circle)",
    "one star at the top (right: one star at the top)",
  ]
  np.testing.assert_array_equal(
    artifact.data["images"][:, 0], columns["image"][[0, 3]]
  )


def test_an_unknown_metric_is_refused_with_the_nearest(make, columns):
  with pytest.raises(errors.UserError, match="Did you mean 'cider_d'"):
    make(columns, metrics=("cider",))


def test_samples_without_pictures_are_a_table(make, columns):
  del columns["image"]
  (artifact,) = make(columns, num_shown=2).pictures(no_predict, {})
  assert artifact.kind == "table"
  assert artifact.data["rows"] == [
    ["a red circle.", "the red circle"],
    ["one star at the top", "one star at the top"],
  ]
