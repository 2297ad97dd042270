"""Many objectives, many tasks, one loss."""

import dataclasses
import zlib
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core import errors, piecewise
from mmjax.core.interfaces import LossTerm, Metrics, Objective
from mmjax.core.piecewise import Piecewise
from mmjax.objectives.forward_once import ForwardOnce


@dataclasses.dataclass(frozen=True)
class WeightedObjective:
  """An objective of a task, and how much its mean loss counts."""

  task: str  # Key of the batch that it reads.
  objective: Objective
  weight: float | Piecewise = 1.0  # Constant, or by optimizer step.

  def __post_init__(self):
    if not piecewise.highest(self.weight) >= 0.0:
      raise errors.UserError(
        f"The weight of an objective is {self.weight}, expected >= 0."
      )


Objectives = Mapping[str, WeightedObjective]  # By name, unique over tasks.


def forward(
  objectives: Objectives,
  call: Callable[..., Any],
  batches: Mapping[str, Mapping[str, jax.Array]],
  rng: jax.Array,
  *,
  train: bool,
) -> tuple[dict[str, LossTerm], Metrics]:
  """Runs every objective on its task's batch.

  Args:
    objectives: what to run.
    call: see `ForwardOnce`.
    batches: one batch per task of this step; the objectives of other tasks
      are left out.
    rng: folded with the objective's name, so that adding an objective does
      not change the others' randomness.
    train: see `Objective`.

  Returns:
    A `LossTerm` by objective, and metrics by `objective/metric`.
  """
  applies = {
    task: ForwardOnce(call, batch, train=train)
    for task, batch in batches.items()
  }
  terms, metrics = {}, {}
  for name, item in of_tasks(objectives, batches).items():
    key = jax.random.fold_in(rng, zlib.crc32(name.encode()))
    with jax.named_scope(f"objective_{name}"):  # So it is called in profiles.
      term, extra = item.objective(
        applies[item.task], batches[item.task], rng=key, train=train
      )
    terms[name] = term
    metrics.update({f"{name}/{k}": v for k, v in extra.items()})
  return terms, metrics


def of_tasks(objectives: Objectives, tasks: Collection[str]) -> Objectives:
  """Those that read one of these tasks."""
  return {n: item for n, item in objectives.items() if item.task in tasks}


def weights_at(
  objectives: Objectives, step: jax.Array | int
) -> dict[str, jax.Array]:
  """The weight of each objective at an optimizer step."""
  return {
    name: jnp.asarray(piecewise.at(item.weight, step, jnp), jnp.float32)
    for name, item in objectives.items()
  }


def weighted_sum(
  scales: Mapping[str, jax.Array],
  terms: Mapping[str, LossTerm],
  weights: Mapping[str, jax.Array],
) -> jax.Array:
  """Sum over objectives of scale * total / how much counts.

  Args:
    scales: how much the mean loss of each objective counts in this step.
    terms: totals of this (micro-)batch.
    weights: what to divide by: how much counts in the whole batch.
  """
  loss = jnp.zeros((), jnp.float32)
  for name, term in terms.items():
    mean = LossTerm(term.total, weights[name]).mean
    loss = loss + scales[name] * mean
  return loss
