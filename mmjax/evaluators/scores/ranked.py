"""How well scores put the right ones first."""

import numpy as np
from jaxtyping import Bool, Float, Int


def top_k(
  scores: Float[np.ndarray, "b v"], labels: Int[np.ndarray, " b"], k: int
) -> float:
  """Share of examples whose class is among the k with the highest scores.

  Of equal scores, the class of the example comes last; NaN is above all.
  """
  own = np.take_along_axis(scores, labels[:, None], axis=1)
  rank = (~(scores < own)).sum(axis=1) - 1
  return float(np.mean(rank < k))


def average_precision(
  scores: Float[np.ndarray, " b"], right: Bool[np.ndarray, " b"]
) -> float:
  """The mean, over the right ones, of the precision down to their score.

  Equal scores are taken together; without interpolation. NaN if none is
  right.
  """
  if not right.any():
    return float("nan")
  order = np.argsort(-scores, kind="stable")
  ordered = scores[order]
  last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
  found = np.cumsum(right[order])[last]
  precision = found / (last + 1)
  return float(np.sum(np.diff(found, prepend=0) * precision) / right.sum())


def mean_average_precision(
  scores: Float[np.ndarray, "b v"], right: Bool[np.ndarray, "b v"]
) -> tuple[float, Float[np.ndarray, " v"]]:
  """The mean over classes that some example has, and each class's own."""
  own = np.array(
    [
      average_precision(column, there)
      for column, there in zip(scores.T, right.T, strict=True)
    ]
  )
  known = own[~np.isnan(own)]
  return float(known.mean()) if len(known) else float("nan"), own
