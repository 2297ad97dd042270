import dataclasses

import numpy as np
import pytest
from sklearn import metrics

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
  artifact, _ = evaluator.pictures(predict, {})
  expected = np.zeros((4, 4), int)
  for row, label in zip(logits, labels, strict=True):
    expected[label, row.argmax()] += 1
  np.testing.assert_array_equal(artifact.data["values"], expected)
  assert artifact.data["row_names"] == ["a", "b", "c", "d"]


def test_calibration_is_of_the_highest_probability(made):
  evaluator, predict, logits, labels = made
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  # With so many bins, each example is alone in its own.
  alone = dataclasses.replace(evaluator, num_bins=10_000)
  gaps = np.abs((logits.argmax(axis=1) == labels) - probs.max(axis=1))
  assert dict(alone.run(predict, {}))["ece"] == pytest.approx(
    gaps.mean(), rel=1e-5
  )


def test_reliability_bars_are_accuracies_of_bins(made):
  evaluator, predict, logits, labels = made
  whole = dataclasses.replace(evaluator, num_bins=1)
  _, bars = whole.pictures(predict, {})
  assert bars.data["values"] == pytest.approx(
    [np.mean(logits.argmax(axis=1) == labels)]
  )
  assert "7 examples" in bars.data["names"][0]


def test_calibration_can_be_left_out(made):
  evaluator, predict, _, _ = made
  without = dataclasses.replace(evaluator, num_bins=0)
  assert "ece" not in dict(without.run(predict, {}))
  assert [a.name for a in without.pictures(predict, {})] == ["confusion"]


@pytest.fixture
def several(fake, rng):
  logits = rng.normal(size=(9, 4)).astype(np.float32)
  shares = (rng.uniform(size=(9, 4)) * [1, 1, 1, 0]).astype(np.float32)
  predict = fake.predict_with(
    pool=lambda batch, modality, view: batch["logits"],
    head=lambda batch, name, pooled, view: pooled,
  )
  evaluator = Classification(
    batches=fake.batched({"logits": logits, "label": shares}, 4),
    class_names=("a", "b", "c", "d"),
  )
  return evaluator, predict, logits, shares


def test_several_classes_are_judged_by_average_precision(several):
  evaluator, predict, logits, shares = several
  got = dict(evaluator.run(predict, {}))
  there = shares >= 0.5
  expected = [
    metrics.average_precision_score(there[:, i], logits[:, i]) for i in range(3)
  ]
  assert got["mAP"] == pytest.approx(np.mean(expected))  # Nobody has "d".
  said = logits > 0
  assert got["precision"] == pytest.approx((said & there).sum() / said.sum())
  assert got["recall"] == pytest.approx((said & there).sum() / there.sum())
  probs = 1 / (1 + np.exp(-logits))
  losses = -shares * np.log(probs) - (1 - shares) * np.log(1 - probs)
  assert got["loss"] == pytest.approx(losses.mean(), rel=1e-5)

  (bars,) = evaluator.pictures(predict, {})
  assert sorted(bars.data["values"]) == pytest.approx(sorted(expected))
  assert "d" not in bars.data["names"]
