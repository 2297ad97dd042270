import numpy as np
import pytest

from mmjax.evaluators import ranking


def by_sorting(queries, candidates, query_keys, candidate_keys):
  """Rank of the first right candidate in a sorted list, wrong ones first."""
  out = []
  for q, key in zip(queries, query_keys, strict=True):
    rows = [
      (-float(q @ c), k == key)
      for c, k in zip(candidates, candidate_keys, strict=True)
    ]
    rows.sort()  # Of equal scores, False comes first.
    out.append(next(i for i, (_, right) in enumerate(rows) if right))
  return out


def test_ranks_are_those_of_a_sorted_list(rng, monkeypatch):
  # Several tiles both ways, some ragged.
  monkeypatch.setattr(ranking, "CHUNK", 4)
  monkeypatch.setattr(ranking, "CANDIDATES", 6)
  queries, candidates = rng.normal(size=(10, 3)), rng.normal(size=(15, 3))
  keys = np.arange(15) % 10
  got = ranking.ranks(queries, candidates, np.arange(10), keys)
  assert got.tolist() == by_sorting(queries, candidates, np.arange(10), keys)


def test_a_model_that_maps_all_to_one_point_ranks_last():
  ones = np.ones((5, 2))
  assert (
    ranking.ranks(ones, ones, np.arange(5), np.arange(5)).tolist() == [4] * 5
  )


def test_equal_keys_are_right_for_each_other():
  queries = np.eye(2)
  candidates = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
  keys = np.array(["same", "same"])
  got = ranking.ranks(
    queries, candidates, keys, np.array(["same", "other", "same"])
  )
  # Query 0 is nearest to the wrong one, query 1 to a right one.
  assert got.tolist() == [1, 0]


def test_a_query_without_right_candidate_is_an_error():
  with pytest.raises(ValueError, match="'b' has no right candidate"):
    ranking.ranks(
      np.eye(2), np.eye(2), np.array(["a", "b"]), np.array(["a", "c"])
    )


def test_recalls_count_ranks_below_k():
  got = ranking.recalls(np.array([0, 1, 4, 5, 99]), (1, 5, 10))
  assert got == {"R@1": 0.2, "R@5": 0.6, "R@10": 0.8}


def test_no_tile_is_larger_than_it_may_be(rng, monkeypatch):
  monkeypatch.setattr(ranking, "CHUNK", 4)
  monkeypatch.setattr(ranking, "CANDIDATES", 6)
  sizes = []

  class Watched(np.ndarray):
    def __matmul__(self, other):
      sizes.append((self.shape[0], other.shape[1]))
      return np.asarray(self) @ np.asarray(other)

  queries = rng.normal(size=(10, 3)).view(Watched)
  ranking.ranks(queries, rng.normal(size=(15, 3)), np.arange(10), np.arange(15))
  assert sizes
  assert max(sizes) <= (4, 6) and max(n for _, n in sizes) <= 6


def test_a_model_that_diverged_gets_no_credit():
  nan = np.full((3, 2), np.nan)
  keys = np.arange(3)
  assert ranking.ranks(nan, nan, keys, keys).tolist() == [2, 2, 2]
