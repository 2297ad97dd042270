"""Uses of a saved run: open its checkpoints, evaluate it."""

import json
from collections.abc import Sequence
from pathlib import Path

import ml_collections as mlc

from mmjax.build import evaluation, experiment, tokenizer_ids
from mmjax.core import errors
from mmjax.train import checkpoint
from mmjax.train.state import TrainState


def open_checkpoints(workdir: Path) -> checkpoint.Checkpointer:
  """The checkpoints of a run, to be read.

  Raises:
    UserError: the folder holds no run.
  """
  folder, saved = workdir / "checkpoints", workdir / "config.json"
  if not folder.is_dir() or not saved.is_file():
    raise errors.UserError(
      f"No run in {str(workdir)!r}: expected a folder that "
      "`mmjax train --workdir=...` wrote, with config.json and checkpoints/."
    )
  settings = json.loads(saved.read_text())["checkpoint"]
  return checkpoint.Checkpointer(
    folder,
    best_metric=settings["best_metric"],
    best_mode=settings["best_mode"],
  )


def which(step: str) -> int | str:
  """Reads "latest", "best" or a number.

  Raises:
    UserError: it is something else.
  """
  if step not in ("latest", "best") and not step.isdigit():
    raise errors.UserError(f"step={step!r}, expected latest, best or a number.")
  return int(step) if step.isdigit() else step


def restore(
  config: mlc.ConfigDict, workdir: Path, step: str
) -> tuple[experiment.Experiment, int, TrainState]:
  """The experiment of a workdir and the state of one of its checkpoints.

  Args:
    config: resolved; as in the workdir, or with other evaluators.
    workdir: folder of a training run.
    step: "latest", "best" or a number.

  Raises:
    UserError: no such run or checkpoint, or one that does not fit.
  """
  number_or_name = which(step)
  source = open_checkpoints(workdir)
  made = experiment.prepare(config)
  try:
    number, state, meta = source.restore(made.abstract_state, number_or_name)
  finally:
    source.close()
  tokenizer_ids.check(made, state, meta)
  return made, number, state


def evaluate(
  config: mlc.ConfigDict,
  workdir: Path,
  step: str,
  only: Sequence[str],
  *,
  pictures: bool,
) -> tuple[int, dict[str, float]]:
  """Runs evaluators on a checkpoint.

  Returns:
    The step, and `{"evaluator/metric": value}`.
  """
  made, number, state = restore(config, workdir, step)
  runner = evaluation.Evaluation(config, made, workdir)
  runner.check_names(only)
  values = runner.run(
    state.ema_variables, number, list(only) or None, pictures=pictures
  )
  return number, values
