"""The table of `mmjax bench --suite=cpu`: what has to be reached, and what is.

`suite_rows.py` has its rows. A group's candidates run side by side; each runs
once in a group however many rows compare it.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ml_collections as mlc

import mmjax
from mmjax.bench import (
  candidates,
  machine,
  makers,
  pictures,
  rounds,
  steps,
  suite_rows,
  tables,
  work,
)
from mmjax.bench.suite_rows import Row, Timed
from mmjax.build import settings
from mmjax.core import config as config_lib
from mmjax.core import errors

CONFIGS = "configs/bench"
NUM_PICTURES = 500  # JPEGs that are made to read.
MARGIN = 0.03  # Of a bound; what two runs differ by.
Say = Callable[[str], None]


def run(
  *,
  rows: Sequence[str] = (),
  peers: Sequence[str] = (),
  num_rounds: int,
  secs: float,
  dry_run: bool = False,
  say: Say = lambda text: None,
) -> tuple[str, dict[str, Any]]:
  """Runs the rows, and describes them.

  Args:
    rows: numbers, "4" or "4b"; none = all.
    peers: options of peers, `NAME:OPTION`.
    num_rounds: samples of each candidate.
    secs: time of a sample.
    dry_run: only lists what would be run.
    say: told what goes on.

  Returns:
    The text and all figures.

  Raises:
    UserError: an unknown row or peer, or mmjax is not run from a checkout.
  """
  steps.check_numbers(num_rounds, secs)
  for name in peers:
    makers.check_peer(name)
  chosen = choose(rows)
  groups = {row.group: grouped(chosen, row.group) for row in chosen}
  if dry_run:
    return _plan(groups), {}
  before = machine.facts()
  results: dict[str, dict[str, rounds.Result]] = {}
  tasks: dict[str, work.Work] = {}
  start = time.monotonic()
  with tempfile.TemporaryDirectory(prefix="mmjax-bench-") as name:
    folder = Path(name)
    if any(map(_reads_files, itertools.chain(*groups.values()))):
      say(f"making {NUM_PICTURES} pictures")
      pictures.write(folder, NUM_PICTURES)
    for group, timed in groups.items():
      say(f"group {group}: {len(timed)} candidates")
      results[group] = _run_group(
        timed, peers, folder, tasks, num_rounds, secs, say
      )
  found = {
    "machine": before,
    "versions": machine.versions(),
    "secs": time.monotonic() - start,
    "rows": [outcome(row, results[row.group]) for row in chosen],
    "candidates": {
      group: steps.figures(
        _merged(results, group),
        {n: tasks[n] for n in results[group] if n in tasks},
      )
      for group in groups
      if group != suite_rows.PIPELINES
    },
  }
  return describe(found), found


def choose(numbers: Sequence[str]) -> list[Row]:
  """The rows of these numbers: "4" is "4a" and "4b".

  Raises:
    UserError: unknown.
  """
  if not numbers:
    return list(suite_rows.ROWS)
  known = {row.number for row in suite_rows.ROWS}
  whole = {number.rstrip("abc") for number in known}
  for number in numbers:
    if number not in known | whole:
      raise errors.unknown("row", number, known | whole)
  return [
    row
    for row in suite_rows.ROWS
    if {row.number, row.number.rstrip("abc")} & set(numbers)
  ]


def grouped(rows: Sequence[Row], group: str) -> list[Timed | str]:
  """Who runs in a group, each once."""
  members = [m for r in rows if r.group == group for m in (r.first, r.second)]
  return list(dict.fromkeys(members))


def _name(member: Timed | str) -> str:
  return member if isinstance(member, str) else member.name


def _reads_files(member: Timed | str) -> bool:
  return isinstance(member, str) or member.real_input


def _plan(groups) -> str:
  lines = []
  for group, members in groups.items():
    lines += [f"group {group}:", *(f"  {_name(m)}" for m in members)]
  return "\n".join(lines)


def load(address: str) -> mlc.ConfigDict:
  """A config of `configs/bench`, resolved.

  Raises:
    UserError: mmjax is not run from a checkout.
  """
  folder = Path(mmjax.__file__).resolve().parents[1] / CONFIGS
  if not folder.is_dir():
    raise errors.UserError(
      f"The suites time the configs of {CONFIGS}, which are not in what was "
      "installed: run from a checkout of mmjax's repository."
    )
  name, _, arg = address.partition(":")
  file = f"{folder / name}.py"
  return settings.resolve(config_lib.load(f"{file}:{arg}" if arg else file))


def _run_group(members, peers, folder, tasks, num_rounds, secs, say):
  """Results by name; adds the work of each to `tasks`."""
  options = {name.partition(":")[0]: name for name in peers}
  timed: dict[str, rounds.Make] = {}
  for member in members:
    if isinstance(member, str):
      timed[member] = functools.partial(candidates.Batches, member, folder)
      continue
    config = load(member.config)
    tasks[member.name] = task = work.of(config)
    if member.who == makers.OWN:
      if member.real_input:
        _read_from(config, folder)
      timed[member.name] = makers.own(
        config, member.precision, real_input=member.real_input
      )
    else:
      who = options.get(member.who, member.who)
      timed[member.name] = makers.peer(who, task, member.precision)
  results = rounds.run(
    timed,
    rounds=num_rounds,
    secs=secs,
    say=say,
    environment=makers.ENVIRONMENT,
  )
  return {result.name: result for result in results}


def _read_from(config: mlc.ConfigDict, folder: Path) -> None:
  """Lets a config read the JPEGs, a random part of each."""
  with config.unlocked():
    config.data.source = "prepared"
    config.data.path = str(folder / "prepared")
    config.data.image.crop_scale = candidates.SCALE
    config.data.cache_mib = 0


def _merged(results, group) -> list[rounds.Result]:
  """A group's results; for the losses, those of float32 of others too."""
  others = [r for g in results if g != group for r in results[g].values()]
  mine = results[group]
  exact = [
    r for r in others if r.name not in mine and r.name.endswith(" float32")
  ]
  return [*mine.values(), *exact]


def outcome(row: Row, results: dict[str, rounds.Result]) -> dict[str, Any]:
  """A row's ratio and verdict: "goal", "must", "MISS", or why there is none."""
  first, second = results[_name(row.first)], results[_name(row.second)]
  said: dict[str, Any] = {
    "number": row.number,
    "what": row.what,
    "measure": row.measure,
    "must": row.must,
    "goal": row.goal,
    "at_most": row.at_most,
  }
  missing = first.missing or second.missing
  if missing:
    return said | {"verdict": f"not run: {missing.strip().splitlines()[-1]}"}
  found = _measure(row.measure, first, second)
  if found is None:
    return said | {"verdict": f"not run: no {row.measure} of one of them"}
  return said | {
    "ratio": dict(vars(found)),
    "verdict": verdict(found.median, row),
  }


def _measure(measure, first, second) -> rounds.Ratio | None:
  if measure == suite_rows.SPEED:
    return rounds.ratio(first, second)
  key = {
    suite_rows.TEMP: "temp_bytes",
    suite_rows.COMPILE: "compile_secs",
  }[measure]
  values = [result.facts.get(key) for result in (first, second)]
  if not all(values):
    return None
  value = values[0] / values[1]
  return rounds.Ratio(value, value, value)


def verdict(value: float, row: Row) -> str:
  """Which bound a ratio reaches, but for the margin."""
  for name, bound in (("goal", row.goal), ("must", row.must)):
    limit = bound * (1 + MARGIN if row.at_most else 1 - MARGIN)
    if value <= limit if row.at_most else value >= limit:
      return name
  return "MISS"


def describe(found: dict[str, Any]) -> str:
  """The table of rows, and one of each group's candidates."""
  header = ("row", "what", "measure", "ratio", "must", "goal", "verdict")
  lines = [
    tables.heading(found),
    "",
    *tables.table(header, [_cells(row) for row in found["rows"]]),
    "",
    f"{found['secs'] / 60:.1f} minutes; a bound counts as reached from "
    f"{MARGIN:.0%} off",
  ]
  for group, figures in found["candidates"].items():
    lines += ["", f"{group}:", *tables.candidates(figures)]
  return "\n".join(lines)


def _cells(row: dict[str, Any]) -> list[str]:
  sign = "<=" if row["at_most"] else ">="
  ratio = tables.spread(row["ratio"]) if "ratio" in row else "-"
  return [
    row["number"],
    row["what"],
    row["measure"],
    ratio,
    f"{sign} {row['must']:.2f}",
    f"{sign} {row['goal']:.2f}",
    row["verdict"],
  ]
