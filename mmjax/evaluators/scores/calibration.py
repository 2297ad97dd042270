"""Whether a model is as often right as it says."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclasses.dataclass(frozen=True)
class Reliability:
  """Answers in bins of equal width, by how sure the model is of them."""

  counts: Int[np.ndarray, " n"]  # Answers in each bin.
  confidence: Float[np.ndarray, " n"]  # Their mean; 0 in an empty bin.
  accuracy: Float[np.ndarray, " n"]

  @property
  def error(self) -> float:
    """The expected calibration error: the mean distance of the two, 0..1.

    Source: Guo et al. 2017 (arXiv:1706.04599), eq. 3.
    """
    share = self.counts / max(self.counts.sum(), 1)
    return float(np.sum(share * np.abs(self.accuracy - self.confidence)))


def reliability(
  confidence: Float[np.ndarray, " b"],
  right: Bool[np.ndarray, " b"],
  num_bins: int,
) -> Reliability:
  """Sorts answers into the bins (0, 1/n], (1/n, 2/n], ..., (1 - 1/n, 1].

  Args:
    confidence: probability that the model gives to its answer.
    right: whether it is.
    num_bins: n.
  """
  scaled = np.ceil(confidence.astype(np.float64) * num_bins) - 1
  which = np.clip(scaled, 0, num_bins - 1).astype(np.int64)
  counts = np.bincount(which, minlength=num_bins)

  def mean(values):
    sums = np.bincount(which, values.astype(np.float64), minlength=num_bins)
    return sums / np.maximum(counts, 1)

  return Reliability(counts, mean(confidence), mean(right))
