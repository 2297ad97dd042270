"""Saves what a run learned on top of its base, and puts it there again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import experiment as experiment_lib
from mmjax.build import finetuning, teacher
from mmjax.core import errors, folders, trees
from mmjax.finetune import lora as lora_lib
from mmjax.finetune import lora_file


def save(
  config: mlc.ConfigDict,
  experiment: experiment_lib.Experiment,
  params: Mapping[str, Any],
  path: Path,
  origin: str,
) -> lora_file.Contents:
  """Writes what was trained, and what the base lacks (`init.new`).

  Args:
    config: of the run.
    experiment: of the run.
    params: as evaluation takes them.
    path: of the file.
    origin: where these came from, in words.

  Raises:
    UserError: the run has no adapters.
  """
  lora = finetuning.lora(config)
  if lora is None:
    raise errors.UserError(
      "This run has no adapters (config.finetune.lora): all that it learned is "
      "in its checkpoint."
    )
  new = [trees.compile_pattern(p) for p in config.init.new]
  flat = trees.flatten(params)
  own = {
    name: np.asarray(leaf)
    for name, leaf in flat.items()
    if experiment.trainable[name]
    or lora_lib.is_adapter(name)
    or any(p.fullmatch(name) for p in new)
  }
  base = {n: x for n, x in flat.items() if n not in own}
  contents = lora_file.Contents(
    arrays=own, lora=lora, base=_fingerprint(base), origin=origin
  )
  lora_file.save(path, contents)
  return contents


def load(
  config: mlc.ConfigDict, variables: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
  """Puts the arrays of `init.lora` on top of the base.

  Where the model has no adapters, they are merged into its kernels.

  Args:
    config: of the run that starts.
    variables: of its model, with the base in place.

  Raises:
    UserError: no such file, or one of another base or other adapters.
  """
  path = folders.file(config.init.lora)
  contents, lora = lora_file.load(path), finetuning.lora(config)
  flat = trees.flatten(variables["params"])
  base = {
    n: x
    for n, x in flat.items()
    if n not in contents.arrays and not lora_lib.is_adapter(n)
  }
  _check(path, contents, lora, flat, base)
  new = dict(contents.arrays)
  if lora is None:
    new = _merged(flat, contents)
  params = trees.map_names(
    lambda n, x: jax.device_put(new[n], x.sharding) if n in new else x,
    dict(variables["params"]),
  )
  how = "merged into kernels" if lora is None else "as adapters"
  report = f"{len(contents.arrays)} parameters on top, {how} (from {path})"
  return {**variables, "params": params}, report


def _merged(flat, contents):
  """What of the model changes: kernels with adapters, and what is beside."""
  arrays = contents.arrays
  kernels = {
    f"{n.removesuffix(lora_lib.A)}{lora_lib.KERNEL}"
    for n in arrays
    if n.endswith(f"/{lora_lib.A}")
  }
  touched = {n: np.asarray(flat[n]) for n in kernels} | dict(arrays)
  return trees.flatten(lora_lib.merge(trees.unflatten(touched), contents.lora))


def _check(path, contents, lora, flat, base):
  if lora is not None and (lora.rank, lora.alpha) != (
    contents.lora.rank,
    contents.lora.alpha,
  ):
    raise errors.UserError(
      f"{path} has adapters of rank={contents.lora.rank}, alpha="
      f"{contents.lora.alpha}; config.finetune.lora has rank={lora.rank}, "
      f"alpha={lora.alpha}. Set both as in the file."
    )
  # Without adapters in the model, those of the file go into kernels.
  wanted = {n: x for n, x in flat.items() if n not in base}
  have = contents.arrays
  if lora is None:
    have = {n: x for n, x in have.items() if not lora_lib.is_adapter(n)}
    for name in contents.arrays:
      kernel = f"{name.rpartition('/')[0]}/{lora_lib.KERNEL}"
      if lora_lib.is_adapter(name) and kernel not in flat:
        have[kernel] = contents.arrays[name]  # Said to be extra.
  problems = trees.diff(trees.unflatten(wanted), trees.unflatten(have))
  if problems:
    raise errors.UserError(
      f"{path} does not fit the model (missing and extra are said of the "
      f"file):\n{problems}\nIt was made with finetune.lora.targets="
      f"{contents.lora.targets}; {contents.origin}."
    )
  ours = _fingerprint(base)
  if ours != contents.base:
    raise errors.UserError(
      f"{path} belongs on a base with the fingerprint {contents.base}, this "
      f"one has {ours}. Start from the checkpoint that it was trained on "
      f"(init.from_checkpoint, init.step): {contents.origin}."
    )


def _fingerprint(base):
  return lora_file.fingerprint(
    {n: x for n, x in base.items() if not n.startswith(teacher.PREFIX)}
  )
