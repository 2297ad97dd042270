"""Reads training runs from their folders."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.report import evaluations, formats

CONFIG_FILE = "config.json"
METRICS_FILE = "metrics.jsonl"

Row = Mapping[str, Any]
Points = tuple[tuple[int, float], ...]  # (step, value), by step.


class ReportError(ValueError):
  """There is nothing to report on, or no place to write to.

  The text says where, what was expected there and what to do.
  """


@dataclasses.dataclass(frozen=True)
class Run:
  """A training run as it lies on the disk; all but the folder may be empty."""

  folder: Path
  config: Mapping[str, Any]
  rows: tuple[Row, ...]  # Of metrics.jsonl, in the order of writing.
  results: tuple[evaluations.Result, ...]
  artifacts: tuple[evaluations.Artifact, ...]
  notes: tuple[str, ...]  # What is missing or could not be read.

  @property
  def start(self) -> Row:
    """The row that the run wrote before its first step."""
    return next(iter(self.of_kind("start")), {})

  @property
  def stage(self) -> str:
    """What the run calls itself."""
    name = self.start.get("stage") or self.config.get("stage")
    return str(name or self.folder.resolve().name)

  @property
  def num_steps(self) -> int:
    """Steps that the run wants to make; 0 if unknown."""
    train = self.config.get("train")
    planned = train.get("num_steps") if isinstance(train, Mapping) else None
    return whole(self.start.get("num_steps", planned)) or 0

  @property
  def last_step(self) -> int:
    """The newest step in the log."""
    return max((whole(r.get("step")) or 0 for r in self.rows), default=0)

  @property
  def finished(self) -> bool:
    """Whether the log has the last step."""
    return 0 < self.num_steps <= self.last_step

  @property
  def times(self) -> tuple[float, float] | None:
    """When the first and the last row were written, seconds since 1970."""
    times = [formats.number(row.get("time")) for row in self.rows]
    known = [t for t in times if t is not None and math.isfinite(t)]
    return (min(known), max(known)) if known else None

  @property
  def chance(self) -> Mapping[str, float]:
    """Losses of a model that knows nothing, for objectives that have one."""
    chance = self.start.get("chance")
    values = chance if isinstance(chance, Mapping) else {}
    known = {k: formats.number(v) for k, v in values.items()}
    return {
      k: v for k, v in known.items() if v is not None and math.isfinite(v)
    }

  def of_kind(self, kind: str) -> list[Row]:
    """Rows of one kind: "start", "train" or "eval"."""
    return [row for row in self.rows if row.get("kind") == kind]

  def series(self, name: str, kind: str = "train") -> Points:
    """A number over steps, from the rows that have it."""
    found = {}
    for row in self.of_kind(kind):
      step, value = whole(row.get("step")), formats.number(row.get(name))
      if step is not None and value is not None:
        found[step] = value
    return tuple(sorted(found.items()))

  def names(self, kind: str = "train") -> list[str]:
    """Names of all numbers in the rows of a kind, in order of appearance."""
    names = {
      name: None
      for row in self.of_kind(kind)
      for name, value in row.items()
      if formats.number(value) is not None
    }
    return [n for n in names if n not in ("kind", "step", "time")]


def whole(value: Any) -> int | None:
  """Reads a whole number, such as a step; None if it is none."""
  read = formats.number(value)
  return int(read) if read is not None and abs(read) < 1e15 else None


def find_runs(workdir: Path) -> list[Run]:
  """Reads the run in a folder, or those in its subfolders by time of start.

  Raises:
    ReportError: no such folder, or no run in it.
  """
  if not workdir.is_dir():
    what = "It is a file" if workdir.exists() else "There is none"
    raise ReportError(
      f"No report for {str(workdir)!r}. {what}; expected the folder of a "
      f"training run ({CONFIG_FILE}, {METRICS_FILE}), or a folder of such "
      f"folders. Train first: mmjax train --config=FILE --workdir={workdir}"
    )
  folders = [workdir] if _is_run(workdir) else _subfolders(workdir)
  if not folders:
    found = sorted(p.name for p in workdir.iterdir())[:8]
    raise ReportError(
      f"No training run in {str(workdir)!r}. Expected {CONFIG_FILE} and "
      f"{METRICS_FILE} in it or in its subfolders, found {found or 'nothing'}. "
      "Give the --workdir of `mmjax train`, or the folder above it."
    )
  runs = [read_run(folder) for folder in folders]
  return sorted(runs, key=_age) if len(runs) > 1 else runs


def _is_run(folder: Path) -> bool:
  return any((folder / f).is_file() for f in (CONFIG_FILE, METRICS_FILE))


def _subfolders(workdir: Path) -> list[Path]:
  return sorted(f for f in workdir.iterdir() if f.is_dir() and _is_run(f))


def _age(run: Run) -> tuple[float, str]:
  return (run.times[0] if run.times else math.inf, run.folder.name)


def read_run(folder: Path) -> Run:
  """Reads one run; what cannot be read becomes a note."""
  config, config_notes = _read_config(folder / CONFIG_FILE)
  rows, row_notes = _read_rows(folder / METRICS_FILE)
  results, artifacts, evaluation_notes = evaluations.read(folder)
  notes = (*config_notes, *row_notes, *evaluation_notes)
  return Run(folder, config, rows, results, artifacts, notes)


def _read_config(path: Path) -> tuple[Mapping[str, Any], Sequence[str]]:
  if not path.exists():
    return {}, [f"{path.name} is missing: the configuration is not known."]
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as e:
    return {}, [f"{path.name} could not be read ({e})."]
  if not isinstance(content, dict):
    return {}, [f"{path.name} is no JSON object."]
  return content, []


def _read_rows(path: Path) -> tuple[tuple[Row, ...], Sequence[str]]:
  if not path.exists():
    return (), [f"{path.name} is missing: nothing was logged yet."]
  lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
  lines = [line for line in lines if line.strip()]
  rows = [_read_row(line) for line in lines]
  damaged = [i for i, row in enumerate(rows, 1) if row is None]
  good = tuple(row for row in rows if row is not None)
  if not rows:
    return (), [f"{path.name} is empty: nothing was logged yet."]
  if damaged == [len(rows)]:
    return good, [
      f"The last line of {path.name} is incomplete; it is left out. A run "
      "that was killed, or is writing right now, leaves it so."
    ]
  if damaged:
    where = ", ".join(map(str, damaged[:5])) + (", ..." * (len(damaged) > 5))
    return good, [f"{path.name} has damaged lines ({where}), left out."]
  return good, []


def _read_row(line: str) -> Row | None:
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  return row if isinstance(row, dict) else None
