"""Draws what evaluators of several runs measured, one line per run.

python experiments/curves.py test/top1 docs/images/vqa_curves.png RUN...

A run is its folder, or LABEL=FOLDER. `mmjax report` of the folder above them
draws the same on a page. Needs matplotlib.
"""

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402


def points(folder: Path, metric: str) -> list[tuple[int, float]]:
  """(step, value) of a metric, of all evaluations of a run."""
  lines = (folder / "metrics.jsonl").read_text("utf-8").splitlines()
  rows = list(map(json.loads, lines))
  return [(r["step"], r[metric]) for r in rows if metric in r]


def main(metric: str, out: str, named: list[str]) -> None:
  """Writes the picture."""
  figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
  for name in named:
    label, _, folder = name.rpartition("=")
    found = points(Path(folder), metric)
    axes.plot(
      *zip(*found, strict=True),
      marker="o",
      markersize=3,
      label=f"{label or Path(folder).name}: {found[-1][1]:.3f}",
    )
  axes.set(xlabel="steps", ylabel=metric)
  axes.grid(alpha=0.3)
  axes.legend(loc="lower right")
  figure.savefig(out, dpi=110)


if __name__ == "__main__":
  if len(sys.argv) < 4:
    sys.exit(__doc__)
  main(sys.argv[1], sys.argv[2], sys.argv[3:])
