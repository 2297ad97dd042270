"""Adds a LoRA run's adapters to its kernels: a run like any other.

mmjax weights merge --workdir=runs/lora --out=runs/merged
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder of a training run", required=True),
  Flag("out", "", "workdir to write", required=True),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  workdir, out = Path(flags.workdir), Path(flags.out)
  config = arguments.load_saved(workdir, [])

  from mmjax.build import weights

  step = weights.merge(config, workdir, flags.step, out)
  print(f"{out}: step {step} of {workdir}, without adapters")
  return 0
