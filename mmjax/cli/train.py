r"""Trains any stage: tokenizer, pretraining, fine-tuning.

  mmjax train --config=configs/quickstart/pretrain.py --workdir=runs/mine \
      --config.train.num_steps=20

A workdir that already has a checkpoint of the same config is resumed. SIGTERM
or Ctrl-C finishes the step and saves; a second one stops at once.
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("workdir", "", "folder for checkpoints, logs, results", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend, progress

  backend.set_up()
  arguments.ready_for_grain()
  config = arguments.load_config(flags.config, overrides)
  workdir = Path(flags.workdir)

  from mmjax.build import training

  with progress.Progress(config.stage, config.train.num_steps) as listener:
    outcome = training.Run(config, workdir, listener).execute()
  if outcome.finished:
    print(
      f"{config.stage}: done, step {outcome.step} of "
      f"{config.train.num_steps} in {workdir}"
    )
  else:
    print(
      f"{config.stage}: stopped and saved step {outcome.step} in "
      f"{workdir}; the same command resumes it"
    )
  return 0
