"""Where a run's parameters come from, and what its checkpoints say."""

import hashlib
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc
import numpy as np
from flax import linen as nn

from mmjax.build import checkpoints
from mmjax.build import experiment as experiment_lib
from mmjax.build import settings as settings_lib
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.data import loader
from mmjax.finetune import surgery
from mmjax.train import checkpoint
from mmjax.train import state as state_lib


def initial_state(
  config: mlc.ConfigDict, experiment: experiment_lib.Experiment
) -> tuple[state_lib.TrainState, str]:
  """A state at step 0, placed on the mesh, and where it came from.

  Raises:
    UserError: the checkpoint to start from is missing, was made with other
      tokenizers, or does not fit; lists what differs.
  """
  seed = settings_lib.settings(config, "train").seed
  key = jax.random.key(seed)
  opt = experiment.train_step.optimizer
  shardings = experiment.shardings
  init_key, run_key = jax.random.split(key)

  def fresh(rng):
    return nn.meta.unbox(
      experiment_lib.init_variables(
        rng, parts=experiment.parts, batch_size=experiment.batch_size
      )
    )

  variables = jax.jit(
    fresh, out_shardings={"params": shardings.params, **shardings.collections}
  )(init_key)
  report = f"all parameters from scratch, seed {seed}"
  settings = settings_lib.settings(config, "init")
  if settings.from_checkpoint:
    variables, report = load(variables, experiment, settings)

  def create(variables, rng):
    return state_lib.create(
      variables,
      optimizer=opt,
      trainable=experiment.trainable,
      ema=bool(experiment.train_step.ema_decay),
      rng=rng,
    )

  state = jax.jit(create, out_shardings=shardings)(variables, run_key)
  return state, report


def load(
  variables: Mapping[str, Any],
  experiment: experiment_lib.Experiment,
  settings: settings_lib.InitSettings,
) -> tuple[dict[str, Any], str]:
  """Replaces fresh variables by those of another run's checkpoint."""
  folder = Path(settings.from_checkpoint)
  source = checkpoints.open_checkpoints(folder)
  step = checkpoints.which(settings.step)
  try:
    params, collections = source.restore_params(step)
    meta = source.read_meta(step)
  finally:
    source.close()
  _check_text_tokenizer(meta, experiment, str(folder), settings)
  rules = dict(
    rename=settings.rename,
    new=settings.new,
    dropped=settings.dropped,
    resize=settings.resize,
    inflate=settings.inflate,
  )
  merged, report = surgery.load_partial(variables["params"], params, **rules)
  loaded = {"params": merged}
  loaded_parts = {n.split("/")[0] for n in report.loaded}
  for name, tree in variables.items():
    if name != "params":
      loaded[name] = _load_collection(
        name, tree, collections.get(name, {}), loaded_parts
      )
  placed = jax.tree.map(
    lambda x, like: jax.device_put(x, like.sharding), loaded, dict(variables)
  )
  return placed, f"{report} (from {folder})"


def _load_collection(name, tree, source, loaded_parts):
  """Takes the collection of each part whose parameters were loaded."""
  found = trees.flatten(source)

  def pick(path, fresh):
    if path.split("/")[0] not in loaded_parts:
      return fresh
    if path not in found or found[path].shape != fresh.shape:
      raise errors.UserError(
        f"The checkpoint to start from lacks {name}/{path} of shape "
        f"{fresh.shape}. It has {sorted(found)}."
      )
    return found[path]

  return trees.map_names(pick, tree)


def _check_text_tokenizer(meta, experiment, folder, settings):
  ours = text_tokenizer_id(experiment)
  theirs = meta.get("text_tokenizer")
  table = "encoders_text/stem/tokens/table"
  unused = any(
    trees.compile_pattern(p).fullmatch(table)
    for p in (*settings.dropped, *settings.new)
  )
  if ours and theirs and ours != theirs and not unused:
    raise errors.UserError(
      f"{folder} was trained with the text tokenizer {theirs}, this config "
      f"uses {ours}. Set config.data.text.tokenizer to "
      f"{folder}/tokenizer.json."
    )


def text_tokenizer_id(experiment: experiment_lib.Experiment) -> str | None:
  """Id (hash) of the text tokenizer, if there is one."""
  for source in experiment.parts.pipelines.values():
    if source.tokenizer is not None:
      return source.tokenizer.id
  return None


def visual_tokenizer_id(state: state_lib.TrainState) -> str | None:
  """Id (hash) of the visual tokenizer's parameters and codes."""
  part = "visual_tokenizer"
  if part not in state.params:
    return None
  digest = hashlib.sha256()
  values = {
    "params": state.params[part],
    "codebook": state.collections.get("codebook", {}).get(part, {}),
  }
  for name, leaf in sorted(trees.flatten(values).items()):
    digest.update(name.encode())
    digest.update(np.asarray(leaf).tobytes())
  return digest.hexdigest()[:16]


def checkpoint_meta(
  config: mlc.ConfigDict,
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  step: int,
) -> dict[str, Any]:
  """What a checkpoint carries beside its arrays."""
  seed = settings_lib.settings(config, "train").seed
  return {
    "config": config_lib.plain(config),
    "fingerprint": checkpoint.fingerprint(state.params),
    "text_tokenizer": text_tokenizer_id(experiment),
    "visual_tokenizer": visual_tokenizer_id(state),
    "data": {
      task: {
        "examples": step * experiment.batch_size,
        "fingerprint": loader.fingerprint(source, seed),
      }
      for task, source in experiment.parts.pipelines.items()
    },
    "versions": versions(),
  }


def versions() -> dict[str, str]:
  """Versions of what computes."""
  packages = (
    "mmjax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "numpy",
  )
  found = {"python": platform.python_version()}
  for name in packages:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      found[name] = "not installed"
  return found


def device_name() -> str:
  """E.g. `cpu x1`."""
  devices = jax.devices()
  return f"{devices[0].device_kind} x{len(devices)}"
