"""Adds a LoRA run's adapters to its kernels: a run like any other.

mmjax weights merge --workdir=runs/lora --out=runs/merged
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder or URL of a training run", required=True),
  Flag("out", "", "workdir to write, a folder or URL", required=True),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.build import weights
  from mmjax.train import url_folder

  workdir = url_folder.fetched(flags.workdir, flags.step)
  config = arguments.load_saved(workdir, [])
  with url_folder.opened(flags.out) as out:
    step = weights.merge(config, workdir, flags.step, out)
  print(f"{flags.out}: step {step} of {flags.workdir}, without adapters")
  return 0
