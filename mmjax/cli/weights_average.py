"""Averages checkpoints of one model, of several runs or of one ("soup").

  mmjax weights average --workdirs=runs/a,runs/b --out=runs/soup
  mmjax weights average --workdirs=runs/a --steps=80,100,120 --out=runs/soup

The new run has the config of the first.
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag(
    "workdirs",
    "",
    "training runs, folders or URLs, separated by commas",
    required=True,
  ),
  Flag("out", "", "workdir to write, a folder or URL", required=True),
  Flag("steps", "latest", "of one run: several; of several: one, or one each"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  workdirs = [w for w in flags.workdirs.split(",") if w]
  steps = [s for s in flags.steps.split(",") if s]
  pairs = _pairs(workdirs, steps)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.build import weights
  from mmjax.train import url_folder

  copies = [url_folder.fetched(w, step) for w, step in pairs]
  configs = {copy: arguments.load_saved(copy, []) for copy in copies}
  runs = [
    (configs[copy], copy, step)
    for copy, (_, step) in zip(copies, pairs, strict=True)
  ]
  with url_folder.opened(flags.out) as out:
    found = weights.average(runs, out)
  print(f"{flags.out}: the mean of {len(found)} checkpoints:")
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
