"""Many objectives, many tasks, one loss."""

import dataclasses
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm, Metrics, Objective
from mmjax.objectives.forward_once import ForwardOnce


@dataclasses.dataclass(frozen=True)
class WeightedObjective:
  """An objective of a task, and how much its mean loss counts."""

  task: str  # Key of the batch that it reads.
  objective: Objective
  weight: float = 1.0

  def __post_init__(self):
    if not self.weight >= 0.0:
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
    batches: one batch per task.
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
  for name, item in objectives.items():
    key = jax.random.fold_in(rng, zlib.crc32(name.encode()))
    term, extra = item.objective(
      applies[item.task], batches[item.task], rng=key, train=train
    )
    terms[name] = term
    metrics.update({f"{name}/{k}": v for k, v in extra.items()})
  return terms, metrics


def weighted_sum(
  objectives: Objectives,
  terms: Mapping[str, LossTerm],
  weights: Mapping[str, jax.Array],
) -> jax.Array:
  """Sum over objectives of weight * total / how much counts.

  Args:
    objectives: gives each objective's weight.
    terms: totals of this (micro-)batch.
    weights: what to divide by: how much counts in the whole batch.
  """
  loss = jnp.zeros((), jnp.float32)
  for name, term in terms.items():
    mean = LossTerm(term.total, weights[name]).mean
    loss = loss + objectives[name].weight * mean
  return loss
