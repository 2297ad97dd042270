"""Prints mean and standard deviation of the figures of equal runs.

python experiments/summarize.py runs/seeds/seed_*
"""

import json
import statistics
import sys
from pathlib import Path


def figures(folder: Path) -> dict[str, float]:
  """`{"stage/evaluator/metric": value}` of the newest step of each stage."""
  found = {}
  for stage in sorted(p for p in folder.iterdir() if p.is_dir()):
    for file in sorted(stage.glob("evaluations/*/metrics.json"))[-1:]:
      for name, value in json.loads(file.read_text()).items():
        found[f"{stage.name}/{name}"] = value
  return found


def main(folders: list[str]) -> None:
  """Prints one line per figure."""
  if not folders:
    sys.exit(__doc__)
  runs = [figures(Path(folder)) for folder in folders]
  for name in runs[0]:
    values = [run[name] for run in runs if name in run]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    each = "  ".join(f"{v:.4f}" for v in values)
    print(f"{name:56}  {statistics.mean(values):8.4f} ± {spread:.4f}  {each}")


if __name__ == "__main__":
  main(sys.argv[1:])
