"""All figures of the input pipeline in one run, as tables and as JSON."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmjax.bench import candidates, machine, pictures, rounds, storage
from mmjax.core import errors

PARTS = ("pictures", "read", "start", "memory", "mixture")


def run(
  parts: Sequence[str],
  *,
  num_pictures: int,
  num_rounds: int,
  secs: float,
  examples: int,
  say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
  """Measures the parts named.

  Args:
    parts: of `PARTS`.
    num_pictures: files that are made.
    num_rounds: samples of each candidate.
    secs: time of a sample.
    examples: over which memory is looked at.
    say: told what goes on.

  Raises:
    UserError: an unknown part, or a number below 1.
  """
  for part in parts:
    if part not in PARTS:
      raise errors.unknown("part of `bench data`", part, PARTS)
  for name, value in (
    ("pictures", num_pictures),
    ("rounds", num_rounds),
    ("secs", secs),
    ("examples", examples),
  ):
    if value < 1:
      raise errors.UserError(f"{name}={value}, expected at least 1.")
  found: dict[str, Any] = {"machine": machine.facts()}
  with tempfile.TemporaryDirectory(prefix="mmjax-bench-") as name:
    folder = Path(name)
    if {"pictures", "read", "memory"} & set(parts):
      say(f"making {num_pictures} pictures")
      pictures.write(folder, num_pictures)
      found["files"] = _sizes(folder)
    if "pictures" in parts:
      results = rounds.run(
        {
          name: functools.partial(candidates.Batches, name, folder)
          for name in candidates.CANDIDATES
        },
        rounds=num_rounds,
        secs=secs,
        say=say,
      )
      found["pictures"] = [_row(result, results) for result in results]
    measures: dict[str, Callable[[], storage.Figures]] = {
      "read": lambda: storage.read_speed(folder, num_rounds),
      "start": storage.start_up,
      "memory": lambda: storage.memory(folder, examples),
      "mixture": storage.draws,
    }
    for part, measure in measures.items():
      if part in parts:
        say(part)
        found[part] = measure()
  return found


def _sizes(folder: Path) -> dict[str, float]:
  """Mean kB of a picture's record, by form."""
  count = len(list((folder / "jpeg").iterdir()))
  found = {}
  for form in ("prepared", "copies"):
    shards = (folder / form).rglob("*.array_record")
    found[form] = sum(f.stat().st_size for f in shards) / count / 1e3
  return found


def _row(result: rounds.Result, results) -> dict[str, Any]:
  (base,) = [r for r in results if r.name == candidates.BASELINE]
  ratio = result.median / base.median if base.rates else None
  return {
    "name": result.name,
    "median": result.median,
    "least": min(result.rates, default=0.0),
    "most": max(result.rates, default=0.0),
    "ratio": ratio if result.rates else None,
    "missing": result.missing,
  }


def describe(found: dict[str, Any]) -> str:
  """The figures as text."""
  where = found["machine"]
  lines = [
    f"{where['cores']} cores, {where['machine']}, Python "
    f"{where['python']}; load before {where['load_before']:.1f}"
  ]
  if files := found.get("files"):
    lines.append(
      f"JPEG 500 x 375, {files['prepared']:.0f} kB each; copies of "
      f"{pictures.STORED} pixels {files['copies']:.0f} kB"
    )
  if rows := found.get("pictures"):
    lines += ["", *_table(rows), ""]
  if read := found.get("read"):
    lines.append(
      f"reading shards: records {read['records']:,.0f} MiB/s, their files "
      f"alone {read['files']:,.0f} MiB/s: {read['share']:.0%}; as examples, "
      f"checksums compared, {read['examples']:,.0f} MiB/s"
    )
  if start := found.get("start"):
    lines.append(
      f"start with {storage.RECORDS:,} records: {start['secs']:.2f} s, "
      f"{start['mib']:.0f} MiB"
    )
  if memory := found.get("memory"):
    lines.append(
      f"memory over {memory['examples']:,} examples, {candidates.PARALLEL} "
      f"workers: {memory['mib']:.0f} MiB, ±{memory['spread']:.1%}, growth "
      f"{memory['growth']:+.1%}"
    )
  if draws := found.get("mixture"):
    lines.append(
      f"mixture 5:4:3:2:1 after {draws['draws']:,} draws: off by "
      f"{draws['largest_error']:.3%} at most"
    )
  return "\n".join(lines)


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
  width = max(len(row["name"]) for row in rows)
  lines = [
    f"{'crop 224 and 64 tokens':{width}}  images/s   min-max      vs torch"
  ]
  for row in rows:
    if row["missing"]:
      why = row["missing"].strip().splitlines()[-1]
      lines.append(f"{row['name']:{width}}  {why}")
      continue
    spread = f"{row['least']:.0f}-{row['most']:.0f}"
    ratio = f"{row['ratio']:.2f}x" if row["ratio"] else "-"
    lines.append(
      f"{row['name']:{width}}  {row['median']:8,.0f}   {spread:11}  {ratio}"
    )
  return lines
