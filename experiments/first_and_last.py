"""Prints a Markdown table of runs: chance level, first and held-out loss.

python experiments/first_and_last.py runs/objectives/*
"""

import json
import sys
from pathlib import Path


def rows(run: Path) -> list[tuple[str, float | None, float, float | None]]:
  """(objective, chance, first loss, held-out loss) of a run."""
  lines = (run / "metrics.jsonl").read_text("utf-8").splitlines()
  records = list(map(json.loads, lines))
  chance = next(r["chance"] for r in records if r["kind"] == "start")
  first = next(r for r in records if r["kind"] == "train")
  last = next((r for r in reversed(records) if r["kind"] == "eval"), {})
  return [
    (name, level, first[f"{name}/loss"], last.get(f"unseen_artist/{name}/loss"))
    for name, level in chance.items()
  ]


def main(folders: list[str]) -> None:
  """One row per objective."""
  if not folders:
    sys.exit(__doc__)
  print("| objective | chance | first loss | held-out loss |")
  print("|---|---|---|---|")
  for folder in folders:
    for name, *numbers in rows(Path(folder)):
      cells = ["" if n is None else f"{n:.3f}" for n in numbers]
      print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
  main(sys.argv[1:])
