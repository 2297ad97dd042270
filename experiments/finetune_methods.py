"""Prints a Markdown table of runs that train other parameters of one model.

python experiments/finetune_methods.py runs/methods/*

Memory is what the compiled training step asks for: its arguments (parameters,
optimizer state, a batch) and temporaries, by XLA's own account.
"""

import json
import statistics
import sys
from pathlib import Path

from mmjax.build import experiment
from mmjax.cli import arguments

MIB = 2**20


def row(folder: Path) -> list[str]:
  """Accuracies, trained parameters, memory and time of a run."""
  lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
  records = list(map(json.loads, lines))
  start = next(r for r in records if r["kind"] == "start")
  steps = [r["step_secs"] for r in records if "step_secs" in r]
  file = sorted(folder.glob("evaluations/*/metrics.json"))[-1]
  found = json.loads(file.read_text("utf-8"))
  made = experiment.prepare(arguments.load_saved(folder, []))
  memory = made.lower_step().compile().memory_analysis()
  needed, temporary = (
    memory.argument_size_in_bytes,
    memory.temp_size_in_bytes,
  )
  return [
    folder.name,
    *(
      f"{found[f'{split}/top{k}']:.3f}"
      for split in ("unseen_artist", "unseen_concept")
      for k in (1, 5)
    ),
    f"{start['trainable_params']:,}",
    f"{needed / MIB:.1f} + {temporary / MIB:.1f}",
    f"{1000 * statistics.median(steps):.0f}",
    f"{statistics.median(steps) * start['num_steps']:.0f}",
  ]


def main(folders: list[str]) -> None:
  """One row per run."""
  if not folders:
    sys.exit(__doc__)
  titles = [
    "trained",
    "unseen artist, top 1",
    "top 5",
    "unseen concept, top 1",
    "top 5",
    "parameters trained",
    "MiB, state + temporary",
    "ms a step",
    "s of steps",
  ]
  print("| " + " | ".join(titles) + " |")
  print("|---" * len(titles) + "|")
  for folder in folders:
    print("| " + " | ".join(row(Path(folder))) + " |")


if __name__ == "__main__":
  main(sys.argv[1:])
