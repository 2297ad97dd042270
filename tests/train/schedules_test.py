import math

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.train import schedules

PEAK, WARMUP, STEPS = 0.3, 4, 20


def rates(kind, *, warmup_steps=WARMUP, num_steps=STEPS, **kwargs):
  fn = schedules.schedule(
    kind,
    peak_lr=PEAK,
    warmup_steps=warmup_steps,
    num_steps=num_steps,
    **kwargs,
  )
  return [float(fn(step)) for step in range(num_steps + 3)]


def warmup(step):
  return min(1.0, (step + 1) / WARMUP)


def test_warmup_grows_linearly_from_one_notch_above_zero():
  got = rates("constant")[:WARMUP]

  expected = [PEAK / 4, PEAK / 2, PEAK * 3 / 4, PEAK]
  np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_constant_stays_at_the_peak():
  np.testing.assert_allclose(rates("constant")[WARMUP:], PEAK, rtol=1e-6)


@pytest.mark.parametrize("end", [0.0, 0.1])
def test_cosine_is_half_a_cosine_from_peak_to_end(end):
  def expected(step):
    done = min(max(step - WARMUP, 0) / (STEPS - WARMUP), 1.0)
    factor = end + (1 - end) * (1 + math.cos(math.pi * done)) / 2
    return PEAK * warmup(step) * factor

  got = rates("cosine", end_factor=end)

  # Near the end 1 + cos cancels: an absolute tolerance of float32.
  want = [expected(step) for step in range(len(got))]
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)


def test_cosine_stays_at_its_end_after_the_last_step():
  np.testing.assert_allclose(rates("cosine", end_factor=0.1)[-3:], PEAK * 0.1)


def test_rsqrt_falls_with_the_root_of_the_step():
  got = rates("rsqrt")

  expected = [
    PEAK * warmup(step) * min(1.0, math.sqrt(WARMUP / max(step, 1)))
    for step in range(len(got))
  ]
  np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "cosine", "rsqrt"])
def test_without_warmup_the_first_step_has_the_peak(kind):
  assert rates(kind, warmup_steps=0)[0] == pytest.approx(PEAK)


@pytest.mark.parametrize("kind", ["constant", "cosine", "rsqrt"])
def test_run_that_ends_with_its_warmup_has_finite_rates(kind):
  got = rates(kind, warmup_steps=STEPS)

  assert np.all(np.isfinite(got))
  assert got[STEPS - 1] == pytest.approx(PEAK)


def test_warmup_longer_than_the_run_is_refused():
  with pytest.raises(
    errors.UserError, match="warmup_steps=21, expected 0 to train.num_steps=20"
  ):
    rates("cosine", warmup_steps=STEPS + 1)


def test_unknown_schedule_names_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'cosine'"):
    rates("cosin")
