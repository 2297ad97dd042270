"""Prints a Markdown table of runs that differ in one thing.

python experiments/compare.py runs/fusion/*
"""

import json
import statistics
import sys
from pathlib import Path


def row(run: Path) -> dict[str, float]:
  """Speed, size and the newest evaluation of a run."""
  lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
  speeds = [
    record["examples_per_sec"]
    for record in map(json.loads, lines)
    if "examples_per_sec" in record
  ]
  found = {"examples/s": statistics.median(speeds)}
  for file in sorted(run.glob("evaluations/*/metrics.json"))[-1:]:
    found |= json.loads(file.read_text("utf-8"))
  return found


def main(folders: list[str]) -> None:
  """One row per run, one column per figure that all have."""
  runs = {Path(folder).name: row(Path(folder)) for folder in folders}
  if not runs:
    sys.exit(__doc__)
  names = [
    n for n in next(iter(runs.values())) if all(n in r for r in runs.values())
  ]
  print("| run | " + " | ".join(names) + " |")
  print("|---" * (len(names) + 1) + "|")
  for run, figures in runs.items():
    print(f"| {run} | " + " | ".join(f"{figures[n]:.4g}" for n in names) + " |")


if __name__ == "__main__":
  main(sys.argv[1:])
