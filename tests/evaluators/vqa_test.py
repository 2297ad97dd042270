import numpy as np
import pytest

from mmjax.evaluators.vqa import Vqa, VqaGenerated

CLASSES = ("no", "red", "yes")
LOGITS = np.array(
  [[0, 1, 2], [3, 1, 2], [0, 5, 1], [0, 1, 0], [9, 1, 2]], np.float32
)  # yes no red red no
LABELS = np.array([2, 0, 0, 1, 2], np.int32)
PEOPLE = np.array(
  [
    "yes|" * 2 + "no|" * 7 + "maybe",
    "no|" * 9 + "no",
    "blue|" * 9 + "blue",
    "Red|" * 5 + "blue|" * 4 + "blue",
    "yes|" * 9 + "no",
  ],
  object,
)
# min(agreeing others / 3, 1), by whose answer is left out of the ten.
SCORES = [(2 * 1 + 8 * 2) / 30, 1.0, 0.0, 1.0, (1 * 0 + 9 * 1) / 30]
KINDS = np.array(["binary", "binary", "color", "color", "binary"], object)


@pytest.fixture
def columns():
  return {
    "text": np.array([[5], [6], [7], [8], [9]], np.int32),
    "image": np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3),
    "logits": LOGITS,
    "label": LABELS,
    "people": PEOPLE,
    "kind": KINDS,
  }


@pytest.fixture
def picked(fake, letters, columns):
  """An evaluator of picked answers, and its `Predict`."""
  predict = fake.predict_with(
    pool=lambda batch, modality, given, view: batch["logits"],
    head=lambda batch, name, pooled, view: pooled,
  )
  return lambda **options: Vqa(
    batches=fake.batched({**columns, **options.pop("columns", {})}, 2),
    tokenizer=letters,
    class_names=CLASSES,
    **options,
  ), predict


def test_of_one_answer_it_is_plain_accuracy(picked):
  make, predict = picked
  got = dict(make(by="kind").run(predict, {}))
  assert got == {
    "accuracy": pytest.approx(3 / 5),
    "accuracy/binary": pytest.approx(2 / 3),
    "accuracy/color": pytest.approx(1 / 2),
  }


def test_of_ten_answers_it_is_the_official_score(picked):
  make, predict = picked
  got = dict(make(answers="people").run(predict, {}))
  assert got["accuracy"] == pytest.approx(np.mean(SCORES))


def test_a_share_of_each_answer_is_what_it_is_worth(picked):
  make, predict = picked
  shares = np.array(
    [[0, 0, 0.3], [1, 0.6, 0], [0.9, 0, 0], [0, 0.6, 0], [0, 0, 1]], np.float32
  )
  got = dict(make(columns={"label": shares}).run(predict, {}))
  assert got["accuracy"] == pytest.approx((0.3 + 1 + 0 + 0.6 + 0) / 5)


def test_questions_are_shown_with_answer_and_truth(picked, columns):
  make, predict = picked
  (artifact,) = make(num_shown=2).pictures(predict, {})
  assert artifact.data["captions"] == ["a yes ✓", "e no ✗ yes"]
  np.testing.assert_array_equal(
    artifact.data["images"][:, 0], columns["image"][[0, 4]]
  )


def no_predict(params, fn, batch):
  raise AssertionError("What is generated is not asked of the model here.")


class Says:
  """Says what the batch holds, or the first of the choices."""

  def __call__(self, params, batch):
    return [str(text) for text in batch["says"]]

  def choose(self, params, batch, answers):
    return [answers[0]] * len(batch["says"])


@pytest.fixture
def said(fake, letters, columns):
  columns["says"] = np.array(["Yes.", "no", "red", "the red", "no"], object)
  columns["answer"] = np.array([[6], [5], [7], [5], [5]], np.int32)
  return lambda **options: VqaGenerated(
    batches=fake.batched(columns, 2),
    tokenizer=letters,
    generate=Says(),
    **options,
  )


def test_generated_answers_get_the_official_score(said):
  got = dict(said(answers="people", by="kind").run(no_predict, {}))
  assert got["accuracy"] == pytest.approx(np.mean(SCORES))
  assert got["accuracy/color"] == pytest.approx((0 + 1) / 2)


def test_right_answers_may_be_token_ids(said):
  # The letters b, a, c, a, a.
  got = dict(said(choices=("B", "c")).run(no_predict, {}))
  assert got["accuracy"] == pytest.approx(1 / 5)


def test_answers_without_pictures_are_a_table(said, columns):
  del columns["image"]
  (artifact,) = said(num_shown=2).pictures(no_predict, {})
  assert artifact.kind == "table"
  assert artifact.data["rows"] == [["a", "Yes.", "✗ b"], ["e", "no", "✗ a"]]
