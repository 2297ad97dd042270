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
  Flag(
    "workdir",
    "",
    "folder or URL (gs://, s3://) for checkpoints, logs, results",
    required=True,
  ),
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
  from mmjax.train import url_folder

  config = arguments.load_config(flags.config, overrides)
  shared = job is None or not folders.is_url(flags.workdir)
  if job is not None:
    job.check({"workdir, if a URL": "" if shared else flags.workdir})
  with url_folder.opened(flags.workdir, peers=job) as workdir:
    outcome = _run(config, workdir, job, progress, shared)
  if job is not None and not job.first:
    return 0
  if outcome.finished:
    print(
      f"{config.stage}: done, step {outcome.step} of "
      f"{config.train.num_steps} in {flags.workdir}"
    )
  else:
    print(
      f"{config.stage}: stopped and saved step {outcome.step} in "
      f"{flags.workdir}; the same command resumes it"
    )
  return 0


def _run(config, workdir, job, progress, shared):
  from mmjax.build import training

  if job is not None and not job.first:
    return training.Run(config, workdir, job=job, shared=shared).execute()
  with progress.Progress(config.stage, config.train.num_steps) as listener:
    if job is not None:
      listener.on_message(job.device_map())
    return training.Run(config, workdir, listener, job, shared).execute()
