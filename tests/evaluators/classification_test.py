import numpy as np
import pytest

from mmjax.evaluators.classification import Classification


@pytest.fixture
def made(fake, rng):
  logits = rng.normal(size=(7, 4)).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 1, 1, 0], np.int32)
  predict = fake.predict_with(
    pool=lambda batch, modality, view: (modality, batch["logits"]),
    head=lambda batch, name, pooled, view: pooled[1],
  )
  evaluator = Classification(
    batches=fake.batched({"logits": logits, "label": labels}, 3),
    class_names=("a", "b", "c", "d"),
    top_k=(1, 2, 5),
  )
  return evaluator, predict, logits, labels


def test_accuracies_are_those_of_sorted_logits(made):
  evaluator, predict, logits, labels = made
  got = dict(evaluator.run(predict, {}))
  order = np.argsort(-logits, axis=1)
  for k in (1, 2):
    hits = [label in row[:k] for label, row in zip(labels, order, strict=True)]
    assert got[f"top{k}"] == pytest.approx(np.mean(hits))
  assert "top5" not in got  # Of 4 classes, always 1.


def test_loss_is_the_mean_over_real_examples(made):
  evaluator, predict, logits, labels = made
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  expected = -np.mean(
    [np.log(p[k]) for p, k in zip(probs, labels, strict=True)]
  )
  assert dict(evaluator.run(predict, {}))["loss"] == pytest.approx(
    expected, rel=1e-5
  )


def test_majority_is_the_most_frequent_class(made):
  evaluator, predict, _, _ = made
  assert dict(evaluator.run(predict, {}))["majority"] == pytest.approx(3 / 7)


def test_confusion_counts_each_example_once(made):
  evaluator, predict, logits, labels = made
  (artifact,) = evaluator.pictures(predict, {})
  expected = np.zeros((4, 4), int)
  for row, label in zip(logits, labels, strict=True):
    expected[label, row.argmax()] += 1
  np.testing.assert_array_equal(artifact.data["values"], expected)
  assert artifact.data["row_names"] == ["a", "b", "c", "d"]
