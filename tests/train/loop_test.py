import itertools

import jax
import jax.numpy as jnp
import pytest

from mmjax.train import loop
from mmjax.train.loop import Hook
from mmjax.train.state import TrainState


def at(step):
  return TrainState(
    step=jnp.asarray(step, jnp.int32),
    params={},
    opt_state=(),
    collections={},
    ema=None,
    rng=jax.random.key(0),
  )


def run(
  first=0, *, num_steps, hooks=(), stop_after=None, log=None, before=None
):
  """Runs a step that counts; `log` gets all that happens, in order."""
  log = [] if log is None else log
  seen = []

  def step_fn(state, batch):
    log.append(f"step on batch {batch}")
    seen.append(batch)
    return state.replace(step=state.step + 1), {"batch": batch}

  state, done = loop.run(
    step_fn,
    at(first),
    itertools.count(first),
    num_steps=num_steps,
    on_metrics=lambda step, metrics: log.append(
      f"metrics {step} of batch {metrics['batch']}"
    ),
    hooks=hooks,
    should_stop=lambda: stop_after is not None and len(seen) >= stop_after,
    before_step=before,
  )
  return int(state.step), done, seen


def note(log, name):
  return lambda step, state: log.append(f"{name} {step} at {int(state.step)}")


def test_a_step_is_followed_by_its_metrics_then_its_hooks_in_order():
  log = []
  hooks = [Hook(note(log, "evaluate"), 1), Hook(note(log, "save"), 2)]

  run(num_steps=2, hooks=hooks, log=log)

  assert log == [
    "step on batch 0",
    "metrics 1 of batch 0",
    "evaluate 1 at 1",
    "step on batch 1",
    "metrics 2 of batch 1",
    "evaluate 2 at 2",
    "save 2 at 2",
  ]


@pytest.mark.parametrize(
  ("every_steps", "at_end", "expected"),
  [
    (0, True, [7]),
    (0, False, []),
    (3, True, [3, 6, 7]),
    (3, False, [3, 6]),
    (7, True, [7]),
  ],
)
def test_a_hook_runs_by_its_period_and_at_the_end(
  every_steps, at_end, expected
):
  hook = Hook(lambda step, state: None, every_steps, at_end)

  assert [s for s in range(1, 8) if hook.due(s, 7)] == expected


def test_all_steps_are_done():
  assert run(num_steps=5) == (5, 5, [0, 1, 2, 3, 4])


def test_stop_is_asked_for_after_the_step_and_its_hooks():
  log = []

  got = run(num_steps=9, hooks=[Hook(note(log, "save"), 2)], stop_after=4)

  assert got == (4, 4, [0, 1, 2, 3])
  assert log == ["save 2 at 2", "save 4 at 4"]


def test_hook_at_the_end_does_not_run_when_stopped():
  log = []

  run(num_steps=9, hooks=[Hook(note(log, "end"))], stop_after=4)

  assert log == []


def test_run_goes_on_at_the_next_step_and_keeps_its_periods():
  log = []

  got = run(3, num_steps=6, hooks=[Hook(note(log, "save"), 2)])

  assert got == (6, 6, [3, 4, 5])
  assert log == ["save 4 at 4", "save 6 at 6"]


def test_finished_run_takes_no_batch():
  assert run(5, num_steps=5) == (5, 5, [])


def test_before_a_step_its_number_its_batch_and_the_state_so_far_are_seen():
  log = []

  run(
    3,
    num_steps=5,
    log=log,
    before=lambda step, state, batch: log.append(
      f"before {step} at {int(state.step)}, batch {batch}"
    ),
  )

  assert [line for line in log if "metrics" not in line] == [
    "before 4 at 3, batch 3",
    "step on batch 3",
    "before 5 at 4, batch 4",
    "step on batch 4",
  ]
