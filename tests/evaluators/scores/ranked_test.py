import numpy as np
import pytest
from sklearn import metrics

from mmjax.evaluators.scores import ranked


def test_average_precision_is_that_of_another_library(rng):
  for count in (1, 2, 30):
    right = rng.uniform(size=count) < 0.4
    right[0] = True
    scores = rng.normal(size=count)
    tied = scores.round(0)  # Many are equal.
    for values in (scores, tied):
      assert ranked.average_precision(values, right) == pytest.approx(
        metrics.average_precision_score(right, values)
      )


def test_classes_that_nobody_has_are_left_out():
  scores = np.array([[3.0, 1.0, 0.0], [2.0, 2.0, 0.0], [1.0, 3.0, 0.0]])
  right = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0]], bool)
  mean, own = ranked.mean_average_precision(scores, right)
  np.testing.assert_allclose(own, [1.0, 1 / 3, np.nan])
  assert mean == pytest.approx(2 / 3)


def test_top_k_counts_ties_and_nan_against_the_model():
  scores = np.array([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [np.nan, 1.0, 0.0]])
  labels = np.array([0, 0, 1])
  assert ranked.top_k(scores, labels, 1) == pytest.approx(1 / 3)
  assert ranked.top_k(scores, labels, 2) == pytest.approx(1.0)
