import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core.interfaces import LossTerm
from mmjax.train import metrics

SPEED = {
  "step_secs",
  "examples_per_sec",
  "tokens_per_sec",
  "input_wait_fraction",
  "mfu",
  "eta_secs",
}


class Clock:
  def __init__(self):
    self.now = 100.0

  def __call__(self):
    return self.now


def _term(total, weight=1.0):
  return LossTerm(jnp.float32(total), jnp.float32(weight))


def _meter(clock, **kwargs):
  return metrics.Meter(examples_per_step=8, clock=clock, **kwargs)


def _steps(meter, clock, steps, secs, name="loss", **work):
  for step in steps:
    clock.now += secs
    meter.add(step, {name: _term(1.0)}, **work)


def test_row_is_the_weighted_mean_of_its_steps():
  meter = _meter(Clock())
  totals, weights = [2.0, 9.0, 4.0], [1.0, 6.0, 1.0]
  for step, (total, weight) in enumerate(zip(totals, weights, strict=True), 1):
    meter.add(step, {"mlm/loss": _term(total, weight)})

  row = meter.row()

  assert row["step"] == 3
  assert row["mlm/loss"] == pytest.approx(sum(totals) / sum(weights))


def test_a_row_begins_where_the_last_one_ended():
  meter = _meter(Clock())
  meter.add(1, {"loss": _term(5.0)})
  meter.row()
  meter.add(2, {"loss": _term(1.0)})

  assert meter.row()["loss"] == 1.0


def test_metric_that_only_some_steps_have():
  meter = _meter(Clock())
  meter.add(1, {"a": _term(1.0)})
  meter.add(2, {"a": _term(3.0), "b": _term(7.0)})
  meter.add(3, {"b": _term(9.0)})

  row = meter.row()

  assert (row["a"], row["b"]) == (2.0, 8.0)


def test_metric_of_which_nothing_counted_is_left_out():
  meter = _meter(Clock())
  meter.add(1, {"a": _term(0.0, 0.0), "b": _term(float("nan"))})

  row = meter.row()

  assert "a" not in row
  assert np.isnan(row["b"])


def test_counts_of_kinds_say_what_share_occurred_since_the_last_row():
  meter = _meter(Clock())
  kinds = [[4, 0, 0, 0, 2], [0, 0, 2, 0, 0]]
  for step, counts in enumerate(kinds, 1):
    counts = LossTerm(jnp.asarray(counts, jnp.float32), jnp.float32(1.0))
    meter.add(step, {"codes": counts, "loss": _term(1.0)})
  row = meter.row()
  assert "codes" not in row and row["loss"] == 1.0
  assert row["codes_usage"] == pytest.approx(3 / 5)
  # Frequencies 1/2, 1/4, 1/4: 1.5 bits.
  assert row["codes_perplexity"] == pytest.approx(2**1.5)
  # The next row begins at nothing; without any there is nothing to say.
  meter.add(3, {"codes": counts, "loss": _term(1.0)})
  assert meter.row()["codes_usage"] == pytest.approx(1 / 5)
  none = LossTerm(jnp.zeros(5), jnp.float32(1.0))
  meter.add(4, {"codes": none, "loss": _term(1.0)})
  assert "codes_usage" not in meter.row()


def test_add_does_not_wait_for_the_device(monkeypatch):
  meter = _meter(Clock())

  def fail(*args):
    raise AssertionError("waited")

  monkeypatch.setattr(jax, "device_get", fail)
  monkeypatch.setattr(jax, "block_until_ready", fail)
  with jax.transfer_guard_device_to_host("disallow_explicit"):
    for step in (1, 2, 3):
      meter.add(step, {"loss": _term(1.0)})


def test_speed_leaves_out_the_first_step():
  clock = Clock()
  meter = _meter(clock)
  _steps(meter, clock, [1], 60.0)
  assert not SPEED & meter.row().keys()

  clock.now += 60.0
  _steps(meter, clock, [2, 3, 4, 5], 0.0)

  assert meter.row()["step_secs"] == 15.0


def test_speed_of_steps_of_half_a_second():
  clock = Clock()
  meter = _meter(
    clock,
    peak_flops=4e6,
    num_steps=25,
  )
  # 4 of them are timed: 2 seconds.
  _steps(meter, clock, range(1, 6), 0.5, tokens=64, flops=1e6)

  row = meter.row(input_wait_secs=0.5)

  assert {k: row[k] for k in SPEED} == pytest.approx(
    {
      "step_secs": 0.5,
      "examples_per_sec": 16.0,
      "tokens_per_sec": 128.0,
      "input_wait_fraction": 0.25,
      "mfu": 0.5,
      "eta_secs": 10.0,
    }
  )


def test_speed_leaves_out_the_first_step_of_each_task():
  clock = Clock()
  meter = _meter(clock, peak_flops=1e6)
  _steps(meter, clock, [1], 60.0, "a", tokens=1, flops=1e6)
  _steps(meter, clock, [2, 3], 0.5, "a", tokens=1, flops=1e6)
  with meter.paused():
    clock.now += 9.0
  _steps(meter, clock, [4], 60.0, "b", tokens=8, flops=8e6)
  _steps(meter, clock, [5], 1.5, "b", tokens=8, flops=8e6)

  row = meter.row()

  # Two steps of `a` and one of `b`, 2.5 seconds.
  assert row["step_secs"] == pytest.approx(2.5 / 3)
  assert row["tokens_per_sec"] == pytest.approx(10 / 2.5)
  assert row["mfu"] == pytest.approx(10 / 2.5)


def test_what_is_noted_beside_the_steps_is_no_step():
  clock = Clock()
  meter = _meter(clock)
  _steps(meter, clock, [1, 2], 2.0)
  meter.note({"cosine": _term(0.5)})
  meter.note({"cosine": _term(-0.1)})

  row = meter.row()

  assert (row["cosine"], row["step_secs"]) == (pytest.approx(0.2), 2.0)


def test_what_is_not_known_is_left_out():
  clock = Clock()
  meter = _meter(clock, peak_flops=None)
  _steps(meter, clock, [1, 2], 0.5, flops=1e6)

  assert SPEED & meter.row().keys() == {
    "step_secs",
    "examples_per_sec",
    "input_wait_fraction",
  }


def test_pauses_do_not_count():
  clock = Clock()
  meter = _meter(clock)
  _steps(meter, clock, [1, 2], 0.5)
  with meter.paused():
    clock.now += 30.0
  _steps(meter, clock, [3], 0.5)

  assert meter.row()["step_secs"] == 0.5


def test_metrics_on_several_devices():
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
  everywhere = NamedSharding(mesh, P())
  meter = _meter(Clock())
  for step in (1, 2):
    meter.add(step, jax.device_put({"loss": _term(step)}, everywhere))

  assert meter.row()["loss"] == 1.5


def test_measured_peak_is_that_of_a_computer(monkeypatch):
  monkeypatch.setattr(metrics, "PEAK_SECS", 0.1)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))

  with jax.set_mesh(mesh):
    peak = metrics.measure_peak_flops()

  assert 1e8 < peak < 1e14  # Far below one core; far above a CPU.


def test_steps_of_other_sizes_count_what_they_held():
  clock = Clock()
  meter = _meter(clock)
  # The first of a shape compiles: its time is not that of a step.
  _steps(meter, clock, [1], 50.0, examples=4, shape="short")
  _steps(meter, clock, [2, 3], 1.0, examples=4, shape="short")
  _steps(meter, clock, [4], 70.0, examples=1, shape="long")
  _steps(meter, clock, [5], 2.0, examples=1, shape="long")
  row = meter.row()
  assert row["examples_per_sec"] == pytest.approx((4 + 4 + 1) / 4.0)
  assert row["step_secs"] == pytest.approx(4.0 / 3)
