r"""Trains any stage: tokenizer, pretraining, fine-tuning.

  mmjax train --config=configs/quickstart/pretrain.py --workdir=runs/mine \
      --config.train.num_steps=20

A workdir that already has a checkpoint of the same config is resumed. SIGTERM
or Ctrl-C finishes the step and saves; a second one stops at once.

Several processes train one model: Slurm, Open MPI and TPU pods say by
themselves how many; else each is told by flags, see docs/many_hosts.md.
"""

from collections.abc import Sequence

from mmjax.cli import arguments, processes
from mmjax.cli.arguments import Flag
from mmjax.core import folders

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("workdir", "", "folder for checkpoints, logs, results", required=True),
  *processes.FLAGS,
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend, progress

  backend.set_up()
  arguments.ready_for_grain()
  place = processes.start(flags)
  with processes.job(place, flags) as job:
    return _train(flags, overrides, job, progress)


def _train(flags, overrides, job, progress):
  from mmjax.build import training

  config = arguments.load_config(flags.config, overrides)
  workdir = folders.local(flags.workdir)
  if job is not None and not job.first:
    training.Run(config, workdir, job=job).execute()
    return 0
  with progress.Progress(config.stage, config.train.num_steps) as listener:
    if job is not None:
      listener.on_message(job.device_map())
    outcome = training.Run(config, workdir, listener, job).execute()
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
