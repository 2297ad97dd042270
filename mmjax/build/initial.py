"""Where a run's parameters come from, and what its checkpoints say."""

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
import ml_collections as mlc
from flax import linen as nn

from mmjax.build import checkpoints, lora_files, teacher, tokenizer_ids
from mmjax.build import experiment as experiment_lib
from mmjax.build import settings as settings_lib
from mmjax.core import config as config_lib
from mmjax.core import errors, trees
from mmjax.data import loader
from mmjax.finetune import lora, surgery
from mmjax.train import checkpoint, url_folder
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
    return nn.meta.unbox(experiment.init_fn(rng))

  variables = jax.jit(
    fresh, out_shardings={"params": shardings.params, **shardings.collections}
  )(init_key)
  report = f"all parameters from scratch, seed {seed}"
  settings = settings_lib.settings(config, "init")
  if settings.from_checkpoint:
    variables, report = load(variables, experiment, settings)
  if settings.lora:
    variables, said = lora_files.load(config, variables)
    report = f"{report}\n{said}"
  if teacher.PART in variables["params"]:
    variables, said = load_teacher(variables, experiment, config.model.teacher)
    report = f"{report}\n{said}"

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
  folder = url_folder.fetched(settings.from_checkpoint, settings.step)
  source = checkpoints.open_checkpoints(folder)
  step = checkpoints.which(settings.step)
  try:
    params, collections = source.restore_params(step, averaged=settings.ema)
    meta = source.read_meta(step)
  finally:
    source.close()
  _check_text_tokenizer(meta, experiment, settings)
  rules = dict(
    rename=settings.rename,
    new=settings.new,
    dropped=settings.dropped,
    only=settings.only,
    resize=settings.resize,
    resize_method=settings.resize_method,
    inflate=settings.inflate,
  )
  fresh = dict(variables["params"])
  taught = {k: fresh.pop(k) for k in (teacher.PART,) if k in fresh}
  params.pop(teacher.PART, None)  # It has a checkpoint of its own.
  fresh, adapters = _apart(fresh, params)
  merged, report = surgery.load_partial(fresh, params, **rules)
  tokenizer_ids.check_start(experiment, meta, report.loaded)
  loaded = {"params": trees.merge(merged, adapters, taught)}
  loaded_parts = {n.split("/")[0] for n in report.loaded}
  for name, tree in variables.items():
    if name != "params":
      loaded[name] = _load_collection(
        name, tree, collections.get(name, {}), loaded_parts
      )
  placed = jax.tree.map(
    lambda x, like: jax.device_put(x, like.sharding), loaded, dict(variables)
  )
  return placed, "\n".join(
    [
      f"{report} (from {settings.from_checkpoint})",
      *_new_and_frozen(report, experiment, adapters),
    ]
  )


def _apart(fresh, source):
  """Takes out adapters that a base lacks: they start as they are."""
  has = any(map(lora.is_adapter, trees.flatten(source)))
  names = trees.flatten(fresh)
  if has and not any(map(lora.is_adapter, names)):
    raise errors.UserError(
      "The checkpoint to start from has adapters (config.finetune.lora), this "
      "model has none. Merge them first: `mmjax weights merge --workdir=W "
      "--out=W2`."
    )
  return trees.split(
    fresh, {name: has or not lora.is_adapter(name) for name in names}
  )


def _new_and_frozen(report, experiment, adapters):
  """What the user should know: some of what is new will stay as it is."""
  if count := len(trees.flatten(adapters)):
    yield f"{count} parameters of adapters are new"
  stuck = [n for n in report.new if not experiment.trainable[n]]
  if stuck:
    yield (
      f"{len(stuck)} parameters are new and frozen, e.g. {stuck[0]!r}: add "
      "them to finetune.trainable to train them"
    )


def load_teacher(
  variables: Mapping[str, Any],
  experiment: experiment_lib.Experiment,
  workdir: str,
) -> tuple[dict[str, Any], str]:
  """Puts the parameters of a run's newest checkpoint in the teacher's place.

  Only what the objectives call; the rest of the checkpoint is left.

  Raises:
    UserError: it has another text tokenizer, lacks parameters, or has them of
      other shapes.
  """
  folder = url_folder.fetched(workdir)
  source = checkpoints.open_checkpoints(folder)
  try:
    params, _ = source.restore_params()
    meta = source.read_meta()
  finally:
    source.close()
  wanted = variables["params"][teacher.PART]
  theirs, ours = meta.get("text_tokenizer"), text_tokenizer_id(experiment)
  if "encoders_text" in wanted and theirs != ours:
    raise errors.UserError(
      f"The teacher in {workdir} reads the text tokenizer {theirs}, this run "
      f"has {ours}. Set config.data.text.tokenizer to {workdir}/tokenizer.json."
    )
  names = trees.flatten(wanted)
  found = {n: x for n, x in trees.flatten(params).items() if n in names}
  problems = trees.diff(wanted, trees.unflatten(found))
  if problems:
    raise errors.UserError(
      f"The checkpoint in {workdir} is not that of the teacher that the "
      f"objectives ask for:\n{problems}"
    )
  placed = trees.map_names(
    lambda n, like: jax.device_put(found[n].astype(like.dtype), like.sharding),
    wanted,
  )
  params = {**variables["params"], teacher.PART: placed}
  report = f"{len(names)} parameters of the teacher (from {workdir})"
  return {**variables, "params": params}, report


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


def _check_text_tokenizer(meta, experiment, settings):
  folder = settings.from_checkpoint
  ours = text_tokenizer_id(experiment)
  theirs = meta.get("text_tokenizer")
  table = "encoders_text/stem/tokens/table"
  hits = lambda patterns: any(  # noqa: E731
    trees.compile_pattern(p).fullmatch(table) for p in patterns
  )
  unused = hits((*settings.dropped, *settings.new)) or (
    settings.only and not hits(settings.only)
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


def visual_tokenizer_id(
  state: state_lib.TrainState, tokenizer: Any = None
) -> str | None:
  """Id (hash) of the visual tokenizer's parameters and codes."""
  return tokenizer_ids.of_part(state, "visual_tokenizer", tokenizer)


def checkpoint_meta(
  config: mlc.ConfigDict,
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  step: int,
) -> dict[str, Any]:
  """What a checkpoint carries beside its arrays."""
  seed = settings_lib.settings(config, "train").seed
  counts = experiment.parts.mixture.counts(step)
  return {
    "config": config_lib.plain(config),
    "fingerprint": checkpoint.fingerprint(state.params),
    "text_tokenizer": text_tokenizer_id(experiment),
    "visual_tokenizer": visual_tokenizer_id(
      state, experiment.parts.model.visual_tokenizer
    ),
    "cached_codes": tokenizer_ids.cached(experiment.parts.pipelines.values()),
    "data": {
      task: {
        "examples": experiment.batching.examples(task, counts[task]),
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
