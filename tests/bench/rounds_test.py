import functools
import os
import statistics
from pathlib import Path

import pytest

from mmjax.bench import rounds


@pytest.fixture
def fakes(monkeypatch):
  """Candidates whose processes find them by name."""
  monkeypatch.syspath_prepend(str(Path(__file__).parent))
  import fakes

  return fakes


def test_candidates_run_in_turn_and_each_problem_is_told(fakes):
  said = []
  results = rounds.run(
    {
      "slow": functools.partial(fakes.Sampler, 2.0),
      "missing": fakes.not_installed,
      "cannot": fakes.cannot,
      "breaks": fakes.breaks,
      "dies": fakes.dies,
      "fast": functools.partial(fakes.Sampler, 3.0),
    },
    rounds=3,
    secs=0.1,
    say=said.append,
    environment={"MMJAX_FAKE": "huge"},
  )

  found = {result.name: result for result in results}
  assert found["slow"].rates == (2.0, 4.0, 6.0)
  assert found["fast"].rates == (3.0, 6.0, 9.0)
  assert found["fast"].facts["tunables"] == "huge"
  assert "MMJAX_FAKE" not in os.environ
  assert found["slow"].facts["rss_growth_bytes"] >= 0
  assert found["missing"].missing == "not installed: pip install fake"
  assert found["missing"].refused and found["cannot"].refused
  assert "KeyError: 'broken'" in found["breaks"].missing
  assert not found["breaks"].refused
  assert "its process died" in found["dies"].missing
  assert said[0] == "slow: ready" and said[-1] == "round 3 of 3"


def test_a_ratio_is_the_median_over_rounds_not_of_medians():
  a = rounds.Result("a", (10.0, 40.0, 20.0))
  b = rounds.Result("b", (10.0, 10.0, 40.0))
  found = rounds.ratio(a, b)
  each = [10 / 10, 40 / 10, 20 / 40]
  assert (found.median, found.least, found.most) == (
    statistics.median(each),
    min(each),
    max(each),
  )
  assert found.median != a.median / b.median
  assert rounds.ratio(a, rounds.Result("c", missing="gone")) is None
