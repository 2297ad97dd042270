"""Ranks of right answers among candidates, a tile of scores at a time."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

CHUNK = 1024  # Queries whose scores are in memory at once.
CANDIDATES = 16384  # Candidates of each of them: 128 MiB of float64 a tile.


def ranks(
  queries: Float[np.ndarray, "q s"],
  candidates: Float[np.ndarray, "c s"],
  query_keys: np.ndarray,
  candidate_keys: np.ndarray,
) -> Int[np.ndarray, " q"]:
  """Returns the rank of each query's best right candidate; 0 is the best.

  A candidate is right if its key is the query's. A wrong one that scores the
  same counts as better, and so does NaN: a model that maps all to one point
  gets no credit.
  The whole matrix of scores never exists: each of its tiles is computed
  twice, to find the best right score and to count what is better.

  Raises:
    ValueError: a query has no right candidate.
  """
  found = []
  for start in range(0, len(queries), CHUNK):
    part, keys = (x[start : start + CHUNK] for x in (queries, query_keys))
    best = np.full(len(keys), -np.inf)
    for scores, right in _tiles(part, candidates, keys, candidate_keys):
      best = np.maximum(best, np.where(right, scores, -np.inf).max(axis=1))
    if np.isinf(best).any():
      lacking = keys[np.isinf(best)][0]
      raise ValueError(f"The query '{lacking}' has no right candidate.")
    better = np.zeros(len(keys), np.int64)
    for scores, right in _tiles(part, candidates, keys, candidate_keys):
      better += (~right & ~(scores < best[:, None])).sum(axis=1)
    found.append(better)
  return np.concatenate(found)


def _tiles(queries, candidates, query_keys, candidate_keys):
  """Scores and what is right, for some candidates after the other."""
  for start in range(0, len(candidates), CANDIDATES):
    part = slice(start, start + CANDIDATES)
    scores = queries @ candidates[part].T  # q c
    yield scores, query_keys[:, None] == candidate_keys[None, part]


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
  yield f"chance_R@{at[-1]}", min(at[-1] / len(second[1]), 1.0)


def recalls(
  rank: Int[np.ndarray, " q"], at: tuple[int, ...]
) -> dict[str, float]:
  """Share of queries with a right candidate among the first k, by `R@k`."""
  return {f"R@{k}": float(np.mean(rank < k)) for k in at}
