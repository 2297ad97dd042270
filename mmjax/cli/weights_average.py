"""Averages checkpoints of one model, of several runs or of one ("soup").

  mmjax weights average --workdirs=runs/a,runs/b --out=runs/soup
  mmjax weights average --workdirs=runs/a --steps=80,100,120 --out=runs/soup

The new run has the config of the first.
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag("workdirs", "", "training runs, separated by commas", required=True),
  Flag("out", "", "workdir to write", required=True),
  Flag("steps", "latest", "of one run: several; of several: one, or one each"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  workdirs = [Path(w) for w in flags.workdirs.split(",") if w]
  steps = [s for s in flags.steps.split(",") if s]
  pairs = _pairs(workdirs, steps)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  configs = {w: arguments.load_saved(w, []) for w in workdirs}

  from mmjax.build import weights

  out = Path(flags.out)
  found = weights.average([(configs[w], w, step) for w, step in pairs], out)
  print(f"{out}: the mean of {len(found)} checkpoints:")
  for (workdir, _), step in zip(pairs, found, strict=True):
    print(f"  {workdir}, step {step}")
  return 0


def _pairs(workdirs, steps):
  """One run with each step, or each run with its step."""
  if len(workdirs) == 1:
    return [(workdirs[0], step) for step in steps]
  if len(steps) == 1:
    return [(workdir, steps[0]) for workdir in workdirs]
  if len(steps) != len(workdirs):
    raise errors.UserError(
      f"{len(steps)} --steps for {len(workdirs)} --workdirs; expected one, or "
      "one each."
    )
  return list(zip(workdirs, steps, strict=True))
