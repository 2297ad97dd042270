"""Which tasks a step takes: a pure function of (seed, step).

Nothing of it has to be saved: a run that goes on asks how often each task was
drawn before, and reads its data from there.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors, piecewise
from mmjax.core.piecewise import Piecewise
from mmjax.data import order

KINDS = ("sum", "sample")
RATES = ("fixed", "proportional")
BLOCK = 1 << 16  # Steps that are counted at once.


@runtime_checkable
class Mixture(Protocol):
  """Tasks, and how they meet. Steps are counted from 0."""

  @property
  def choices(self) -> tuple[tuple[str, ...], ...]:
    """What a step may take; each is compiled once."""
    ...

  def at(self, step: int) -> tuple[str, ...]:
    """The tasks of a step; each gives one batch."""
    ...

  def counts(self, step: int) -> dict[str, int]:
    """How many batches each task gave before a step."""
    ...


@dataclasses.dataclass(frozen=True)
class Sum:
  """Every task in every step; the loss is the weighted sum."""

  tasks: tuple[str, ...]

  @property
  def choices(self) -> tuple[tuple[str, ...], ...]:
    """All tasks together."""
    return (self.tasks,)

  def at(self, step: int) -> tuple[str, ...]:
    """All of them."""
    del step
    return self.tasks

  def counts(self, step: int) -> dict[str, int]:
    """As many as steps."""
    return dict.fromkeys(self.tasks, step)


@dataclasses.dataclass(frozen=True)
class Sample:
  """One task a step, drawn by rate.

  Parameters that the drawn task does not reach get a gradient of zero, and
  the optimizer treats it as any other: moments decay, weight decay goes on.
  For a step is one draw of an estimate of the gradient of sum(rate * loss),
  and that estimate is right on average only with its zeros in it. So a head
  of a task drawn once in ten steps learns as if its loss weighed a tenth.

  Raises:
    UserError: a rate below zero, or rates that are all zero at some step.
  """

  rates: Mapping[str, float | Piecewise]  # By task; need not sum to 1.
  seed: int = 0

  def __post_init__(self):
    for task, rate in self.rates.items():
      if not 0.0 <= piecewise.highest(rate) < np.inf:
        raise errors.UserError(
          f"The rate of task {task!r} is {rate}, expected >= 0 and finite."
        )
    # Between its points a rate is zero only if it is so at both.
    for step in sorted({0, *self._corners()}):
      if not sum(piecewise.at(r, step) for r in self.rates.values()) > 0.0:
        raise errors.UserError(
          f"The rates of all tasks are zero at step {step}: "
          f"{ {t: str(r) for t, r in self.rates.items()} }."
        )

  @property
  def _tasks(self) -> list[str]:
    """In an order of their own, whatever that of the config."""
    return sorted(self.rates)

  def _corners(self) -> Iterator[int]:
    for rate in self.rates.values():
      if isinstance(rate, Piecewise):
        yield from rate.steps

  @property
  def choices(self) -> tuple[tuple[str, ...], ...]:
    """Each task alone."""
    return tuple((task,) for task in self._tasks)

  def shares(self, steps: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n t"]:
    """The probability of each task, in order of their names."""
    columns = [
      np.broadcast_to(piecewise.at(self.rates[task], steps), steps.shape)
      for task in self._tasks
    ]
    table = np.stack(columns, axis=1).astype(np.float64)  # n t
    return table / table.sum(axis=1, keepdims=True)

  def draw(self, steps: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The number of the task that each of some steps takes."""
    below = np.cumsum(self.shares(steps), axis=1)[:, :-1]  # n t-1
    return (order.spread(steps, self.seed)[:, None] >= below).sum(axis=1)

  def at(self, step: int) -> tuple[str, ...]:
    """The one that was drawn."""
    (number,) = self.draw(np.array([step]))
    return (self._tasks[number],)

  def counts(self, step: int) -> dict[str, int]:
    """Counted anew, a few million steps a second."""
    found = np.zeros(len(self.rates), np.int64)
    for first in range(0, step, BLOCK):
      drawn = self.draw(np.arange(first, min(first + BLOCK, step)))
      found += np.bincount(drawn, minlength=len(found))
    return dict(zip(self._tasks, found.tolist(), strict=True))


def sized(
  rates: Mapping[str, float | Piecewise],
  sizes: Mapping[str, int],
  temperature: float,
) -> dict[str, float | Piecewise]:
  """Multiplies rates by size^(1 / temperature).

  1 draws in proportion to the data, more draws small data sets more often.
  Source: Arivazhagan et al. 2019 (arXiv:1907.05019).
  """
  total = sum(sizes.values())
  return {
    task: piecewise.times(rate, (sizes[task] / total) ** (1.0 / temperature))
    for task, rate in rates.items()
  }
