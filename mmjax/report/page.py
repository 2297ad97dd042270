"""Writes the HTML page: one file that needs no network and no scripts."""

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from mmjax.report import curves, displays, evaluations, formats, plots, runs
from mmjax.report.runs import ReportError

REPORT_FILE = "report.html"
TEMPLATES = Path(__file__).parent / "templates"


@dataclasses.dataclass(frozen=True)
class Table:
  """Results of evaluators that measure the same things, side by side."""

  evaluators: tuple[tuple[str, int], ...]  # Name and step of each column.
  rows: tuple[tuple[str, tuple[str, ...]], ...]  # Metric, a value per column.


@dataclasses.dataclass(frozen=True)
class Section:
  """Everything that the page says of one run."""

  anchor: str
  run: runs.Run
  facts: tuple[tuple[str, str], ...]
  losses: tuple[tuple[str, str, str], ...]  # Objective, last loss, chance.
  init: tuple[str, ...]  # Lines.
  tables: tuple[Table, ...]
  plot_groups: tuple[tuple[str, tuple[plots.Plot, ...]], ...]  # Title, plots.
  other_plots: tuple[plots.Plot, ...]
  examples: tuple[displays.Display, ...]
  settings: tuple[tuple[str, str], ...]
  versions: tuple[tuple[str, str], ...]


def write_report(workdir: Path) -> Path:
  """Writes `<workdir>/report.html` and returns its path.

  Raises:
    ReportError: no such folder, no run in it, or it cannot be written to.
  """
  workdir = Path(workdir)
  page = render(workdir, runs.find_runs(workdir))
  path = workdir / REPORT_FILE
  temporary = path.with_name(f"{REPORT_FILE}.{os.getpid()}.tmp")
  try:
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
  except OSError as e:
    temporary.unlink(missing_ok=True)
    raise ReportError(
      f"{str(path)!r} cannot be written ({e.strerror}). The report goes into "
      "the folder that it is about; make it writable, or copy it."
    ) from e
  return path


def environment() -> jinja2.Environment:
  """What makes pages of templates; values are escaped."""
  return jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
  )


def render(workdir: Path, found: Sequence[runs.Run]) -> str:
  """Makes the page from runs that were read."""
  sections = [_section(i, run) for i, run in enumerate(found, 1)]
  compared = [plots.curve_plot(c) for c in curves.shared_curves(found)]
  template = environment().get_template("page.html.j2")
  return template.render(
    title=workdir.resolve().name or str(workdir),
    sections=sections,
    compared=compared,
  )


def _section(index: int, run: runs.Run) -> Section:
  def drawn(of):
    return tuple(plots.curve_plot(curve) for curve in of(run))

  groups = (
    (
      "Training",
      drawn(curves.loss_curves) + drawn(curves.accuracy_curves),
    ),
    ("Gradients", drawn(curves.conflict_curves)),
    ("Speed", drawn(curves.speed_curves)),
  )
  return Section(
    anchor=f"run-{index}",
    run=run,
    facts=tuple(_facts(run)),
    losses=tuple(_losses(run)),
    init=tuple(str(run.start.get("init") or "").splitlines()),
    tables=tuple(result_tables(run.results)),
    plot_groups=tuple((title, group) for title, group in groups if group),
    other_plots=drawn(curves.other_curves),
    examples=tuple(displays.display_all(run.artifacts)),
    settings=tuple(flat_settings(run.config)),
    versions=tuple(_versions(run.start.get("versions"))),
  )


def _facts(run):
  start, times = run.start, run.times
  steps = f"{run.last_step:,}"
  if not run.finished and run.num_steps:
    steps += f" of {run.num_steps:,}"
  yield "steps", steps
  for title, name in (
    ("parameters", "num_params"),
    ("trained", "trainable_params"),
    ("batch size", "batch_size"),
    ("FLOPs per example", "flops_per_example"),
  ):
    value = formats.number(start.get(name))
    if value is not None:
      yield title, formats.count(value)
  if start.get("device"):
    yield "device", str(start["device"])
  if times:
    yield "first to last log", formats.duration(times[1] - times[0])
    yield "started", formats.instant(times[0])


def _losses(run):
  for curve in curves.loss_curves(run):
    points = curve.series[0].points
    chance = "" if curve.chance is None else formats.decimal(curve.chance)
    if points:
      yield (
        curve.title.removesuffix(" loss"),
        formats.decimal(points[-1][1]),
        chance,
      )


def _versions(versions):
  if isinstance(versions, Mapping):
    yield from ((str(name), str(v)) for name, v in versions.items())


def result_tables(results: Sequence[evaluations.Result]) -> list[Table]:
  """Puts evaluators with the same metrics into one table, a column each."""
  groups: dict[tuple[str, ...], list[evaluations.Result]] = {}
  for result in results:
    groups.setdefault(tuple(result.metrics), []).append(result)
  return [
    Table(
      tuple((r.evaluator, r.step) for r in group),
      tuple(
        (name, tuple(formats.metric(name, r.metrics[name]) for r in group))
        for name in names
      ),
    )
    for names, group in groups.items()
  ]


def flat_settings(config: Any, prefix: str = "") -> list[tuple[str, str]]:
  """Flattens nested settings into pairs of a.b and its value as JSON."""
  if not isinstance(config, Mapping) or (prefix and not config):
    return [(prefix, json.dumps(config, ensure_ascii=False))]
  return [
    pair
    for key, value in config.items()
    for pair in flat_settings(value, f"{prefix}.{key}" if prefix else str(key))
  ]
