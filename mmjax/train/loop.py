"""The training loop: batches in, steps, hooks by period, nothing else."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from mmjax.train.state import TrainState


@dataclasses.dataclass(frozen=True)
class Hook:
  """Something to do every so many steps.

  `run(step, state)` is called after step number `step` (counted from 1) when
  `every_steps` divides it, and after the last step of a finished run if
  `at_end`.
  """

  run: Callable[[int, TrainState], Any]
  every_steps: int = 0  # 0 = only at the end.
  at_end: bool = True

  def due(self, step: int, num_steps: int) -> bool:
    """Whether this hook runs after `step`."""
    if step == num_steps and self.at_end:
      return True
    return bool(self.every_steps) and step % self.every_steps == 0


def run(
  step_fn: Callable[[TrainState, Any], tuple[TrainState, Any]],
  state: TrainState,
  batches: Iterator[Any],
  *,
  num_steps: int,
  on_metrics: Callable[[int, Any], Any],
  hooks: Sequence[Hook],
  should_stop: Callable[[], bool],
  before_step: Callable[[int, TrainState, Any], Any] | None = None,
) -> tuple[TrainState, int]:
  """Runs steps until `num_steps`, or until asked to stop.

  Args:
    step_fn: the compiled step; donates its state.
    state: where to start; `state.step` steps are done.
    batches: yields what `step_fn` takes, from the very next example on.
    num_steps: of the whole run.
    on_metrics: gets the step's metrics, still on the device.
    hooks: run in order; a later hook sees what an earlier one wrote.
    should_stop: asked after each step.
    before_step: gets the number of the step, the state before it and its
      batches.

  Returns:
    The state and the number of steps done.
  """
  start = int(jax.device_get(state.step))
  done = start
  for step in range(start + 1, num_steps + 1):
    batch = next(batches)
    if before_step is not None:
      before_step(step, state, batch)
    state, metrics = step_fn(state, batch)
    on_metrics(step, metrics)
    done = step
    for hook in hooks:
      if hook.due(step, num_steps):
        hook.run(step, state)
    if should_stop():
      break
  return state, done
