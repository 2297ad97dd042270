import numpy as np
import pytest

from mmjax.evaluators.scores import calibration


def by_loop(confidence, right, num_bins):
  """Guo et al. 2017, eq. 3, one bin after the other."""
  total = 0.0
  for m in range(num_bins):
    low, high = m / num_bins, (m + 1) / num_bins
    inside = [i for i, c in enumerate(confidence) if low < c <= high]
    if inside:
      sure = np.mean([confidence[i] for i in inside])
      hits = np.mean([right[i] for i in inside])
      total += len(inside) / len(confidence) * abs(hits - sure)
  return total


def test_the_error_is_that_of_the_definition(rng):
  confidence = rng.uniform(0.01, 1, 50)
  right = rng.uniform(size=50) < confidence**2
  found = calibration.reliability(confidence, right, 15)
  assert found.counts.sum() == 50
  assert found.error == pytest.approx(by_loop(confidence, right, 15))


def test_a_bin_holds_its_upper_end():
  found = calibration.reliability(
    np.array([0.5, 0.51, 1.0]), np.array([True, False, True]), 2
  )
  assert found.counts.tolist() == [1, 2]
  np.testing.assert_allclose(found.accuracy, [1.0, 0.5])
  np.testing.assert_allclose(found.confidence, [0.5, 0.755])
