"""Ranks of right answers among candidates, in chunks of queries."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

CHUNK = 1024  # Queries whose scores are in memory at once.


def ranks(
  queries: Float[np.ndarray, "q s"],
  candidates: Float[np.ndarray, "c s"],
  query_keys: np.ndarray,
  candidate_keys: np.ndarray,
) -> Int[np.ndarray, " q"]:
  """Returns the rank of each query's best right candidate; 0 is the best.

  A candidate is right if its key is the query's. A wrong one that scores the
  same counts as better: a model that maps all to one point gets no credit.
  The whole matrix of scores never exists.

  Raises:
    ValueError: a query has no right candidate.
  """
  found = []
  for start in range(0, len(queries), CHUNK):
    part = slice(start, start + CHUNK)
    scores = queries[part] @ candidates.T  # q c
    right = query_keys[part, None] == candidate_keys[None]
    if not right.any(axis=1).all():
      lacking = query_keys[part][~right.any(axis=1)][0]
      raise ValueError(f"The query '{lacking}' has no right candidate.")
    best = np.where(right, scores, -np.inf).max(axis=1)
    better = ~right & (scores >= best[:, None])
    found.append(better.sum(axis=1))
  return np.concatenate(found)


def both_ways(
  first: tuple[str, np.ndarray, np.ndarray],
  second: tuple[str, np.ndarray, np.ndarray],
  at: tuple[int, ...],
) -> Iterator[tuple[str, float]]:
  """Recalls and median rank from each side to the other, and by chance.

  Args:
    first: name, vectors and keys of one side.
    second: of the other; its keys are distinct.
    at: the k of R@k.
  """
  for (name, a, keys), (other, b, other_keys) in (
    (first, second),
    (second, first),
  ):
    rank = ranks(a, b, keys, other_keys)
    for recall, value in recalls(rank, at).items():
      yield f"{name}_to_{other}/{recall}", value
    yield f"{name}_to_{other}/median_rank", float(np.median(rank) + 1)
  yield f"chance_R@{at[-1]}", at[-1] / len(second[1])


def recalls(
  rank: Int[np.ndarray, " q"], at: tuple[int, ...]
) -> dict[str, float]:
  """Share of queries with a right candidate among the first k, by `R@k`."""
  return {f"R@{k}": float(np.mean(rank < k)) for k in at}
