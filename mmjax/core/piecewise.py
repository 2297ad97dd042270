"""A number that changes over training, given as plain config values."""

import dataclasses
import math
from typing import Any

import numpy as np

from mmjax.core import errors

KINDS = ("linear", "steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piecewise:
  """A number >= 0 by optimizer step, given at some of them.

  Before the first point it has the first value, after the last the last.

  Raises:
    UserError: unknown kind, points that are no pairs, steps that do not grow,
      a value that is below zero or not finite.
  """

  kind: str  # "linear": ramps between the points; "steps": holds each value.
  points: Any  # ((optimizer step, value), ...).

  def __post_init__(self):
    if self.kind not in KINDS:
      raise errors.unknown("schedule", self.kind, KINDS)
    known = isinstance(self.points, tuple) and self.points
    if not known or any(
      not isinstance(p, tuple) or len(p) != 2 for p in self.points
    ):
      raise errors.UserError(
        f"points={self.points!r}, expected ((step, value), ...)."
      )
    if any(b <= a for a, b in zip((-1, *self.steps), self.steps, strict=False)):
      raise errors.UserError(
        f"The steps of a schedule are {list(self.steps)}, expected each >= 0 "
        "and higher than the one before."
      )
    for step, value in self.points:
      if not 0.0 <= value < math.inf:
        raise errors.UserError(
          f"The value at step {step} is {value}, expected >= 0 and finite."
        )

  @property
  def steps(self) -> tuple[int, ...]:
    """Where the points are."""
    return tuple(step for step, _ in self.points)

  @property
  def values(self) -> tuple[float, ...]:
    """The number at each point."""
    return tuple(float(value) for _, value in self.points)

  def __call__(self, step: Any, xp: Any = np) -> Any:
    """The number at a step, or at many; `xp` is numpy or jax.numpy."""
    dtype = np.float64 if xp is np else np.float32
    steps = xp.asarray(self.steps, dtype)
    values = xp.asarray(self.values, dtype)
    if self.kind == "linear":
      return xp.interp(step, steps, values)
    last = xp.searchsorted(steps, step, side="right") - 1
    return values[xp.maximum(last, 0)]

  def times(self, factor: float) -> "Piecewise":
    """The same course, at another height."""
    points = tuple((step, factor * value) for step, value in self.points)
    return dataclasses.replace(self, points=points)

  def __str__(self):
    points = ", ".join(f"{step}: {value:g}" for step, value in self.points)
    return f"{self.kind} {points}"


def at(value: "float | Piecewise", step: Any, xp: Any = np) -> Any:
  """What a number is at a step, whether it changes or not."""
  return value(step, xp) if isinstance(value, Piecewise) else value


def highest(value: "float | Piecewise") -> float:
  """The most that a number ever is."""
  return max(value.values) if isinstance(value, Piecewise) else value


def times(value: "float | Piecewise", factor: float) -> "float | Piecewise":
  """A number at another height, whether it changes or not."""
  if isinstance(value, Piecewise):
    return value.times(factor)
  return value * factor
