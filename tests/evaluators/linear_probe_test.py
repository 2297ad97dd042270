import dataclasses

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators import linear_probe
from mmjax.evaluators.linear_probe import LinearProbe


def test_the_fit_is_where_the_gradient_vanishes(rng):
  x = rng.normal(size=(40, 3))
  labels = rng.integers(0, 4, 40)
  weights, bias = linear_probe.fit(x, labels, 4, l2=0.1, max_steps=500)
  logits = x @ weights + bias
  probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
  gradient, bias_gradient = 0.1 * weights, np.zeros(4)
  for row, p, label in zip(x, probs, labels, strict=True):
    error = p - np.eye(4)[label]
    gradient = gradient + np.outer(row, error) / 40
    bias_gradient += error / 40
  np.testing.assert_allclose(gradient, 0, atol=1e-4)
  np.testing.assert_allclose(bias_gradient, 0, atol=1e-4)


@pytest.fixture
def made(fake, rng):
  centres = np.array([[4.0, 0.0], [0.0, 4.0], [-4.0, -4.0]])

  def columns(count):
    labels = np.arange(count) % 3
    x = centres[labels] + rng.normal(size=(count, 2))
    return {"x": x.astype(np.float32), "label": labels.astype(np.int32)}

  train, test = columns(60), columns(20)
  # One held-out example has the wrong label: the probe has to miss it.
  test["label"][0] = 1
  evaluator = LinearProbe(
    batches=fake.batched(test, 8),
    train_batches=fake.batched(train, 16),
    num_classes=3,
  )
  return evaluator, fake.predict_with(pool=lambda batch, m, view: batch["x"])


def test_separable_classes_are_found(made):
  evaluator, predict = made
  got = dict(evaluator.run(predict, {}))
  assert got["train_top1"] == 1.0
  assert got["top1"] == pytest.approx(19 / 20)


def test_labels_of_several_classes_are_refused(made):
  evaluator, predict = made
  batches = [
    {**batch, "label": np.eye(3)[batch["label"]]}
    for batch in evaluator.train_batches()
  ]
  several = dataclasses.replace(evaluator, train_batches=lambda: iter(batches))
  with pytest.raises(errors.UserError, match="'label'.*one class per example"):
    list(several.run(predict, {}))
