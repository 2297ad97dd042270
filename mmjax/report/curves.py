"""Picks the curves of a run: which numbers stand together in a plot."""

import dataclasses
from collections.abc import Sequence

from mmjax.report import formats, runs

LOSS, ACCURACY = "/loss", "/accuracy"
COSINE = "grad_cosine/"  # grad_cosine/<one objective>/<another>
SPEED = {  # Name in the log -> what it is called on the page.
  "examples_per_sec": "examples per second",
  "input_wait_fraction": "waiting for data",
  "mfu": "model FLOPs utilisation",
}
NOT_SHOWN = ("step_secs", "eta_secs", "loss")  # Said by other curves.


@dataclasses.dataclass(frozen=True)
class Series:
  """One line of a plot."""

  name: str
  points: runs.Points


@dataclasses.dataclass(frozen=True)
class Curve:
  """One plot: a number over steps, and what it is compared with."""

  title: str
  series: tuple[Series, ...]  # What was trained first, then held-out data.
  percent: bool = False  # Values are shares.
  chance: float | None = None  # Value of a model that knows nothing.
  unit: str = ""
  from_zero: bool = False  # Whether the axis has to show 0.


def loss_curves(run: runs.Run) -> list[Curve]:
  """One curve per objective, with its chance level where it has one."""
  curves = []
  for name in _ending(run, LOSS):
    objective = name.removesuffix(LOSS)
    chance = run.chance.get(objective)
    unit = "" if chance is None else "nats"
    curves.append(
      Curve(f"{objective} loss", _series(run, name), chance=chance, unit=unit)
    )
  if not curves and run.series("loss"):
    curves.append(Curve("loss", _series(run, "loss")))
  return curves


def accuracy_curves(run: runs.Run) -> list[Curve]:
  """One curve per objective that logs an accuracy."""
  return [
    Curve(
      f"{name.removesuffix(ACCURACY)} accuracy",
      _series(run, name),
      percent=True,
      from_zero=True,
    )
    for name in _ending(run, ACCURACY)
  ]


def speed_curves(run: runs.Run) -> list[Curve]:
  """Throughput, and what it is limited by."""
  return [
    Curve(
      title,
      (Series("training", run.series(name)),),
      percent=formats.is_share(name),
      from_zero=True,
    )
    for name, title in SPEED.items()
    if run.series(name)
  ]


def conflict_curves(run: runs.Run) -> list[Curve]:
  """For each objective, how its gradient lies to those of the others.

  1: they pull alike, 0: each its own way, -1: against each other.
  """
  found: dict[str, list[Series]] = {}
  for name in _cosines(run):
    a, _, b = name.removeprefix(COSINE).partition("/")
    points = run.series(name)
    found.setdefault(a, []).append(Series(b, points))
    found.setdefault(b, []).append(Series(a, points))
  return [
    Curve(f"{a}: cosine of gradients", tuple(series), from_zero=True)
    for a, series in sorted(found.items())
  ]


def shared_curves(found: Sequence[runs.Run]) -> list[Curve]:
  """What several runs measured on the way: one line per run.

  Numbers that never change are left out.
  """
  curves = []
  for name in dict.fromkeys(n for run in found for n in run.names("eval")):
    series = tuple(
      Series(run.folder.resolve().name, points)
      for run in found
      if len(points := run.series(name, "eval")) > 1
    )
    values = {value for line in series for _, value in line.points}
    if len(series) > 1 and len(values) > 1:
      percent = all(_percent(run, name, "eval") for run in found)
      curves.append(Curve(name, series, percent=percent))
  return curves


def other_curves(run: runs.Run) -> list[Curve]:
  """Everything else in the log, and what evaluators measured on the way."""
  shown = {*SPEED, *NOT_SHOWN, *_cosines(run)}
  shown |= {*_ending(run, LOSS), *_ending(run, ACCURACY)}
  logged = run.names()
  curves = [
    Curve(n, _series(run, n), percent=_percent(run, n))
    for n in logged
    if n not in shown
  ]
  for name in run.names("eval"):
    points = run.series(name, "eval")
    beside = any(name.endswith(f"/{n}") for n in logged)
    if len(points) > 1 and not beside:
      series = (Series(name, points),)
      curves.append(Curve(name, series, percent=_percent(run, name, "eval")))
  return curves


def _percent(run, name, kind="train"):
  values = [value for _, value in run.series(name, kind)]
  return formats.is_share(name) and all(not v > 1.0 for v in values)


def _cosines(run: runs.Run) -> list[str]:
  return [name for name in run.names() if name.startswith(COSINE)]


def _ending(run: runs.Run, end: str) -> list[str]:
  return [name for name in run.names() if name.endswith(end)]


def _series(run: runs.Run, name: str) -> tuple[Series, ...]:
  """The number in training, and of the evaluators that measured it too."""
  held_out = [n for n in run.names("eval") if n.endswith(f"/{name}")]
  return (
    Series("training", run.series(name)),
    *(
      Series(n.removesuffix(f"/{name}"), run.series(n, "eval"))
      for n in held_out
    ),
  )
