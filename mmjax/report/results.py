"""Writes results as plain text, for the terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mmjax.report import formats, runs

INDENT = "  "
GAP = "   "


def results_table(workdir: Path) -> str:
  """Writes the newest results of each run, one section per run.

  Raises:
    ReportError: no such folder, or no run in it.
  """
  return "\n\n".join(_section(run) for run in runs.find_runs(Path(workdir)))


def format_results(values: Mapping[str, float], title: str = "") -> str:
  """Writes `{"evaluator/metric": value}` as aligned columns.

  The width depends on the values only, not on the terminal.
  """
  rows = [
    (*_split(name), formats.metric(name, value))
    for name, value in values.items()
  ]
  lines = _aligned(rows) if rows else [INDENT + "no results"]
  return "\n".join([title] * bool(title) + lines)


def _section(run: runs.Run) -> str:
  values = {
    f"{result.evaluator}/{name}": value
    for result in run.results
    for name, value in result.metrics.items()
  }
  steps = sorted({result.step for result in run.results}, reverse=True)
  if not steps:
    hint = f"mmjax evaluate --workdir={run.folder}"
    planned = f"{run.num_steps:,}" if run.num_steps else "?"
    progress = f"step {run.last_step:,} of {planned}"
    return f"{run.stage}, {progress}\n{INDENT}not evaluated yet: {hint}"
  at = "step " + ", ".join(f"{step:,}" for step in steps)
  return format_results(values, f"{run.stage}, evaluated at {at}")


def _split(name: str) -> tuple[str, str]:
  evaluator, _, metric = name.partition("/")
  return (evaluator, metric) if metric else ("", name)


def _aligned(rows: Sequence[tuple[str, str, str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines, previous = [], None
  for evaluator, metric, value in rows:
    shown = "" if evaluator == previous else evaluator
    columns = [
      shown.ljust(widths[0]),
      metric.ljust(widths[1]),
      value.rjust(widths[2]),
    ]
    lines.append(INDENT + GAP.join(columns[not widths[0] :]))
    previous = evaluator
  return lines
