import numpy as np
import pytest
from scipy import stats

from mmjax.core import errors
from mmjax.core.piecewise import Piecewise
from mmjax.data import mixture

RATES = {"pairs": 5.0, "words": 3.0, "pictures": 2.0}
RAMP = Piecewise(kind="linear", points=((0, 0.0), (10_000, 4.0)))


def drawn(rates, steps, seed=0):
  """Names of the tasks, one step at a time."""
  made = mixture.Sample(rates, seed)
  return [task for step in steps for task in made.at(step)]


def p_value(observed, expected):
  """Of the chi-square test that the counts are as expected."""
  return stats.chisquare(observed, expected).pvalue


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_as_the_rates(seed):
  counts = mixture.Sample(RATES, seed).counts(20_000)

  expected = [20_000 * share for share in (0.5, 0.3, 0.2)]
  assert p_value([counts[t] for t in RATES], expected) > 1e-3


def test_steps_are_drawn_independently():
  numbers = mixture.Sample(RATES).draw(np.arange(20_001))

  pairs = np.zeros((3, 3))  # In order of their names.
  np.add.at(pairs, (numbers[:-1], numbers[1:]), 1)
  shares = np.array([0.5, 0.2, 0.3])
  expected = 20_000 * np.outer(shares, shares)
  # Pairs overlap, so this is not exactly chi-square; it is far off if not
  # independent.
  assert p_value(pairs.ravel(), expected.ravel() * pairs.sum() / 2e4) > 1e-4


def test_rates_that_change_are_followed():
  made = mixture.Sample({"a": 4.0, "b": RAMP}, 1)
  before = 0
  for end in range(2_000, 12_001, 2_000):
    count = made.counts(end)["b"] - before
    before += count
    # The rate of `b` at step s is 4 s / 10000, up to 4; of `a` always 4.
    rates = np.minimum(np.arange(end - 2_000, end) / 10_000, 1.0) * 4.0
    expected = np.sum(rates / (rates + 4.0))
    assert p_value([count, 2_000 - count], [expected, 2_000 - expected]) > 1e-3


def test_draw_depends_on_seed_and_step_alone():
  steps = range(60)
  forth = drawn(RATES, steps)

  assert forth == drawn(RATES, reversed(steps))[::-1]
  assert forth == drawn(dict(reversed(RATES.items())), steps)
  assert forth != drawn(RATES, steps, seed=1)


@pytest.mark.parametrize("step", [0, 1, 7, 300])
def test_counts_before_a_step_are_those_of_the_draws(step, monkeypatch):
  monkeypatch.setattr(mixture, "BLOCK", 64)
  made = mixture.Sample({**RATES, "late": RAMP}, 3)

  before = [task for s in range(step) for task in made.at(s)]

  assert made.counts(step) == {t: before.count(t) for t in made.rates}


@pytest.mark.parametrize("off", ["pairs", "words", "pictures"])
def test_task_of_rate_zero_is_never_drawn(off):
  made = mixture.Sample({**RATES, "more": 0.1, off: 0.0, "none": 0.0})

  counts = made.counts(30_000)

  assert counts[off] == counts["none"] == 0
  assert sum(counts.values()) == 30_000


def test_counting_a_long_run_takes_no_loop_over_its_steps():
  made, calls = mixture.Sample(RATES), []
  draw = made.draw

  class Counted(mixture.Sample):
    def draw(self, steps):
      calls.append(len(steps))
      return draw(steps)

  Counted(RATES).counts(300_000)

  assert len(calls) == 5 and sum(calls) == 300_000


def test_sum_takes_all_tasks_in_every_step():
  made = mixture.Sum(("a", "b"))

  assert made.at(0) == made.at(5) == ("a", "b")
  assert made.choices == (("a", "b"),)
  assert made.counts(7) == {"a": 7, "b": 7}


@pytest.mark.parametrize("temperature", [1.0, 2.0, 100.0])
def test_temperature_flattens_the_sizes(temperature):
  sizes = {"large": 9_000, "small": 1_000}

  rates = mixture.sized({"large": 1.0, "small": 2.0}, sizes, temperature)

  shares = mixture.Sample(rates).shares(np.array([0]))[0]
  weights = np.array([9.0 ** (1 / temperature), 2.0])
  np.testing.assert_allclose(shares, weights / weights.sum())


def test_sizes_multiply_rates_that_change():
  rates = mixture.sized({"a": RAMP, "b": 1.0}, {"a": 3, "b": 1}, 1.0)

  shares = mixture.Sample(rates).shares(np.array([5_000]))[0]
  np.testing.assert_allclose(shares, [6 / 7, 1 / 7])  # 3 * 2 to 1 * 1.


@pytest.mark.parametrize(
  "rates, match",
  [
    ({"a": 0.0, "b": 0.0}, "all tasks are zero at step 0.*'a': '0.0'"),
    ({"a": RAMP, "b": 0.0}, "all tasks are zero at step 0"),
    (
      {"a": Piecewise(kind="steps", points=((0, 1.0), (9, 0.0))), "b": 0.0},
      "zero at step 9",
    ),
    ({"a": 1.0, "b": -0.5}, "rate of task 'b' is -0.5"),
    ({"a": float("inf")}, "rate of task 'a' is inf"),
  ],
)
def test_rates_that_draw_nothing_are_refused(rates, match):
  with pytest.raises(errors.UserError, match=match):
    mixture.Sample(rates)


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_met_within_a_thousandth(seed):
  rates = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}
  counts = mixture.Sample(rates, seed).counts(100_000)
  for task, rate in rates.items():
    want = 100_000 * rate / 15
    assert abs(counts[task] - want) <= 0.001 * want
