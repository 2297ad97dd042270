"""Runs a config's evaluators on a checkpoint.

  mmjax evaluate --workdir=runs/quickstart/pretrain --step=best

Prints a table and writes <workdir>/evaluations/<step>/metrics.json.
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder or URL of a training run", required=True),
  Flag("config", "", "config whose evaluators run; default: the run's own"),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
  Flag("only", "", "names of evaluators, separated by commas"),
  Flag("pictures", True, "also write what the report shows"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.train import url_folder

  with url_folder.opened(flags.workdir, flags.step) as workdir:
    _evaluate(flags, overrides, workdir)
  return 0


def _evaluate(flags, overrides, workdir):
  config = arguments.load_saved(workdir, [] if flags.config else overrides)
  if flags.config:
    other = arguments.load_config(flags.config, overrides)
    with config.unlocked():
      config.evaluators = other.evaluators

  from mmjax.build import checkpoints
  from mmjax.report import results

  only = [name for name in flags.only.split(",") if name]
  step, values = checkpoints.evaluate(
    config, workdir, flags.step, only, pictures=flags.pictures
  )
  print(results.format_results(values, title=f"{flags.workdir}, step {step}"))
