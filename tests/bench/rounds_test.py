import functools
import os
import resource
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


def test_in_each_round_all_work_one_after_another_in_another_order(
  fakes, tmp_path
):
  names, log = ["a", "b", "c"], tmp_path / "log"
  rounds.run(
    {name: functools.partial(fakes.Writer, name, log) for name in names},
    rounds=5,
    secs=0.25,
  )

  lines = log.read_text().splitlines()
  # All are there, and warm, before anyone is timed.
  assert lines[:3] == [f"{name} made" for name in names]
  assert sorted(lines[-3:]) == [f"{name} closed" for name in names]
  work = lines[3:-3]
  assert work[1::2] == [f"{line[0]} ends" for line in work[::2]]
  assert {line[2:] for line in work[::2]} == {"starts 0.25"}
  turns = [line[0] for line in work[::2]]
  orders = [tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)]
  assert len(orders) == 5
  assert all(sorted(order) == names for order in orders)
  assert len(set(orders)) > 1
  assert len({order[0] for order in orders}) > 1  # None always begins.


def test_memory_of_a_candidate_is_what_it_took_as_it_was_made(fakes):
  (result,) = rounds.run({"large": fakes.Large}, rounds=0, secs=0.1)
  grown = result.facts["rss_growth_bytes"]
  assert 0.9 * fakes.GROWTH < grown < 1.5 * fakes.GROWTH


def test_peak_memory_is_that_of_the_system():
  said = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # In KiB.
  # The kernel adds up pages of its cores for one, not for the other.
  assert rounds.peak_memory() == pytest.approx(said, rel=0.05)


def test_a_sample_that_fails_ends_the_run(fakes):
  with pytest.raises(RuntimeError, match="(?s)bad: .*out of luck"):
    rounds.run({"bad": functools.partial(fakes.Fails, 1.0)}, rounds=2, secs=0.1)


def test_variables_of_the_user_stay(fakes, monkeypatch):
  monkeypatch.setenv("MMJAX_FAKE", "mine")
  (result,) = rounds.run(
    {"one": functools.partial(fakes.Sampler, 1.0)},
    rounds=0,
    secs=0.1,
    environment={"MMJAX_FAKE": "theirs"},
  )
  assert result.facts["tunables"] == "mine"
  assert os.environ["MMJAX_FAKE"] == "mine"


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
