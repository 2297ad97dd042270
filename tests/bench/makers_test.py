"""How long steps are timed, and what a large product is."""

import types

import numpy as np
import pytest

from mmjax.bench import makers, peak


class Step:
  """A candidate whose n-th run takes so many seconds a step."""

  def __init__(self, secs):
    self.facts = {"name": "step"}
    self.runs, self.now, self.closed = [], 0.0, False
    self._secs = iter(secs)

  def run(self, num_steps):
    self.runs.append(num_steps)
    self.now += num_steps * next(self._secs)

  def close(self):
    self.closed = True


@pytest.fixture
def step(monkeypatch):
  made = Step([0.5, 0.25, 0.125, 4.0])
  clock = types.SimpleNamespace(perf_counter=lambda: made.now)
  monkeypatch.setattr(makers, "time", clock)
  return made


def test_a_sample_is_as_many_steps_as_fit_by_the_last_ones(step):
  timed = makers.Steps(lambda: step)
  assert timed.facts is step.facts
  assert step.runs == [1]  # To know how long a step takes.

  rates = [timed.sample(secs) for secs in (2.0, 2.0, 0.01)]

  # 2 s are 4 steps of 0.5 s, then 8 of 0.25 s; and there is always one.
  assert step.runs == [1, 4, 8, 1]
  assert rates == [1 / 0.25, 1 / 0.125, 1 / 4.0]
  timed.close()
  assert step.closed


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_large_product_is_the_products_that_it_counts(precision, monkeypatch):
  size, repeats = 48, 3
  monkeypatch.setattr(peak, "SIZES", {"cpu": (size, repeats)})

  made = peak.Product(precision)

  a, b = (np.asarray(x, np.float64) for x in made._inputs)
  expected = a
  for _ in range(repeats):
    expected = expected @ b
  got = made._product(*made._inputs)
  assert got.dtype == precision
  # Numbers of size 1: of bfloat16 three roundings of 8 bits.
  atol = 1e-4 if precision == "float32" else 0.05
  np.testing.assert_allclose(np.asarray(got, np.float64), expected, atol=atol)
  assert 0.5 < np.std(expected) < 2.0  # They neither vanish nor overflow.
  assert made.facts["flops"] == repeats * size * size * (2 * size)


def test_a_large_product_waits_for_the_last(monkeypatch):
  monkeypatch.setattr(peak, "SIZES", {"cpu": (8, 1)})
  made, log = peak.Product("float32"), []

  def product(a, b):
    log.append("product")
    return types.SimpleNamespace(block_until_ready=lambda: log.append("wait"))

  made._product = product
  made.run(2)
  assert log == ["product", "product", "wait"]
