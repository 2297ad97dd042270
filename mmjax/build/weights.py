"""Makes checkpoints of checkpoints: merged, averaged, before the first step."""

from collections.abc import Sequence
from pathlib import Path

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import (
  checkpoints,
  experiment,
  finetuning,
  initial,
  lora_files,
  workdirs,
)
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.finetune import lora as lora_lib
from mmjax.finetune import lora_file
from mmjax.train import checkpoint
from mmjax.train import state as state_lib


def save_lora(
  config: mlc.ConfigDict, workdir: Path, step: str, out: Path
) -> lora_file.Contents:
  """Writes what a run learned beside its base, see `lora_files.save`."""
  made, number, state = checkpoints.restore(config, workdir, step)
  start = config.init.from_checkpoint
  base = f"{start}, step {config.init.step}" if start else "scratch"
  return lora_files.save(
    config,
    made,
    state.ema_variables["params"],
    out,
    f"trained in {workdir}, {number} steps from {base}",
  )


def merge(config: mlc.ConfigDict, workdir: Path, step: str, out: Path) -> int:
  """Writes a run without adapters that computes the same; returns the step.

  Raises:
    UserError: the run has no adapters, or `out` holds a run.
  """
  _check_free(out)
  lora = finetuning.lora(config)
  if lora is None:
    raise errors.UserError(
      f"{workdir} has no adapters to merge (config.finetune.lora)."
    )
  _, number, state = checkpoints.restore(config, workdir, step)
  variables = state.ema_variables
  params = lora_lib.merge(variables["params"], lora)
  plain = _without_lora(config, list(trees.flatten(params)))
  _write(plain, {**variables, "params": params}, number, out)
  return number


def average(
  runs: Sequence[tuple[mlc.ConfigDict, Path, str]], out: Path
) -> list[int]:
  """Writes the mean of checkpoints as a run of the first one's config.

  Source: the uniform soup of Wortsman et al. 2022 (arXiv:2203.05482), 2.

  Args:
    runs: config, workdir and step of each.
    out: workdir to write.

  Returns:
    The step of each; the new checkpoint has the highest.

  Raises:
    UserError: fewer than two checkpoints, one with adapters, of another tree
      or with another tokenizer; or `out` holds a run.
  """
  _check_free(out)
  if len(runs) < 2:
    raise errors.UserError(
      f"{len(runs)} checkpoint to average, expected two or more: several in "
      "--workdirs, or several --steps of one."
    )
  for config, workdir, _ in runs:
    if finetuning.lora(config) is not None:
      raise errors.UserError(
        f"{workdir} has adapters: the mean of products is not the product of "
        "means. Merge each first: `mmjax weights merge`."
      )
  restored = (checkpoints.restore(*run) for run in runs)
  made, number, state = next(restored)
  first, steps = state.ema_variables, [number]
  sums = _doubles(first["params"])
  for (_, workdir, _), (other, number, state) in zip(
    runs[1:], restored, strict=True
  ):
    found = state.ema_variables
    _check_alike((made, first), (other, found), f"{runs[0][1]}", f"{workdir}")
    sums = jax.tree.map(np.add, sums, _doubles(found["params"]))
    steps.append(number)
  params = jax.tree.map(
    lambda total, like: (total / len(runs)).astype(like.dtype),
    sums,
    first["params"],
  )
  _write(runs[0][0], {**first, "params": params}, max(steps), out)
  return steps


def start(config: mlc.ConfigDict, out: Path) -> str:
  """Writes what a config starts from as the checkpoint of step 0.

  Returns:
    Where its parameters came from.

  Raises:
    UserError: as `initial.initial_state`, or `out` holds a run.
  """
  _check_free(out)
  made = experiment.prepare(config)
  state, report = initial.initial_state(config, made)
  _save(config, made, state, 0, out)
  return report


def _without_lora(config, names):
  """A copy of a config, without patterns that matched adapters only."""

  def left(patterns, names):
    compiled = [trees.compile_pattern(p) for p in patterns]
    return tuple(
      p.pattern for p in compiled if any(p.fullmatch(n) for n in names)
    )

  plain = config_lib.from_plain(config_lib.plain(config))
  finetune, optimizer = plain.finetune, plain.optimizer
  with plain.unlocked():
    plain.init.lora = ""
    finetune.lora = mlc.ConfigDict()
    finetune.unfreeze = ()
    finetune.frozen = left(finetune.frozen, names)
    finetune.trainable = left(finetune.trainable, names)
    finetune.trainable = finetune.trainable or finetuning.EVERYTHING
    trained = trees.match(finetune.trainable, names)
    optimizer.lr_factors = tuple(
      (pattern, factor)
      for pattern, factor in optimizer.lr_factors
      if left((pattern,), [n for n in names if trained[n]])
    )
  return plain


def _doubles(params):
  # The sum of many float32 numbers would round each time.
  return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def _check_free(out):
  if any((out / "checkpoints").glob("*")):
    raise errors.UserError(
      f"{out} has checkpoints already; name another folder as --out."
    )


def _check_alike(ours, theirs, our_workdir, their_workdir):
  """Only checkpoints of one model, with the same tokenizers, have a mean."""
  (our_experiment, first), (their_experiment, found) = ours, theirs
  problems = trees.diff(first["params"], found["params"])
  if problems:
    raise errors.UserError(
      f"{their_workdir} has other parameters than {our_workdir} (missing and "
      f"extra are said of {their_workdir}):\n{problems}\nOnly checkpoints of "
      "one model have a mean."
    )
  texts = [
    initial.text_tokenizer_id(e) for e in (our_experiment, their_experiment)
  ]
  rest = [
    lora_file.fingerprint({k: v for k, v in x.items() if k != "params"})
    for x in (first, found)
  ]
  for what, (a, b) in (("text tokenizers", texts), ("codebooks", rest)):
    if a != b:
      raise errors.UserError(
        f"{our_workdir} and {their_workdir} have other {what}, {a} and {b}, "
        "of which there is no mean."
      )


def _write(config, variables, step, out):
  """A checkpoint of given variables, with a fresh optimizer."""
  made = experiment.prepare(config)
  shardings = made.shardings
  placed = jax.tree.map(
    jax.device_put,
    dict(variables),
    {"params": shardings.params, **shardings.collections},
  )

  def create(variables, rng):
    state = state_lib.create(
      variables,
      optimizer=made.train_step.optimizer,
      trainable=made.trainable,
      ema=bool(made.train_step.ema_decay),
      rng=rng,
    )
    return state.replace(step=state.step + step)

  state = jax.jit(create, out_shardings=shardings)(
    placed, jax.random.key(config.train.seed)
  )
  _save(config, made, state, step, out)


def _save(config, made, state, step, out):
  workdirs.claim(out, config)
  workdirs.save_tokenizer(out, made)
  target = checkpoint.Checkpointer(out / "checkpoints", async_=False)
  meta = initial.checkpoint_meta(config, made, state, step)
  target.save(step, state, meta)
  target.close()
