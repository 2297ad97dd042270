"""Whose codes a model predicts: ids (hashes) of tokenizers."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jax.experimental import multihost_utils

from mmjax.build import experiment as experiment_lib
from mmjax.core import errors, trees
from mmjax.data import codes, pipeline
from mmjax.models.multimodal import VISUAL
from mmjax.train import state as state_lib


def of_part(
  state: state_lib.TrainState, part: str, tokenizer: Any = None
) -> str | None:
  """Id of a part's parameters and codes, and of what else decides them."""
  identity = getattr(tokenizer, "identity", "")
  if part not in state.params and not identity:
    return None
  digest = hashlib.sha256(identity.encode())
  values = {
    "params": state.params.get(part, {}),
    "codebook": state.collections.get("codebook", {}).get(part, {}),
  }
  for name, leaf in sorted(trees.flatten(values).items()):
    digest.update(name.encode())
    digest.update(_whole(leaf).tobytes())
  return digest.hexdigest()[:16]


def _whole(leaf):
  """The array, also if other processes have parts of it; all call this."""
  if getattr(leaf, "is_fully_addressable", True):
    return np.asarray(leaf)
  return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))


def computed(
  experiment: experiment_lib.Experiment, state: state_lib.TrainState
) -> dict[str, str]:
  """Ids of the tokenizers in the model, by modality."""
  model = experiment.parts.model
  visual = of_part(state, "visual_tokenizer", model.visual_tokenizer)
  ids = dict.fromkeys(VISUAL, visual)
  for name, tokenizer in (model.tokenizers or {}).items():
    ids[name] = of_part(state, f"tokenizers_{name}", tokenizer)
  return {name: found for name, found in ids.items() if found}


def cached(sources: Iterable[pipeline.Pipeline]) -> dict[str, str]:
  """Ids of the tokenizers whose codes come with the data, by modality."""
  return {
    transform.features.modality: transform.features.tokenizer
    for source in sources
    for transform in source.transforms
    if isinstance(transform, codes.CodesField)
  }


def check(
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  meta: Mapping[str, Any] | None = None,
) -> None:
  """Checks that cached codes are those that the model knows.

  Args:
    experiment: its data may bring codes, its model a tokenizer.
    state: of the model.
    meta: of the checkpoint that a run goes on from.

  Raises:
    UserError: they are another tokenizer's; names both.
  """
  own = computed(experiment, state)
  before = (meta or {}).get("cached_codes", {})
  for modality, theirs in cached(experiment.parts.pipelines.values()).items():
    for ours, whose in (
      (own.get(modality), "the model has"),
      (before.get(modality), "the run began with"),
    ):
      if ours and ours != theirs:
        raise errors.UserError(
          f"The cached codes of {modality!r} (data.codes.path) are of the "
          f"tokenizer {theirs}, {whose} {ours}. Write them with that one: "
          "`mmjax data tokens --tokenizer=WORKDIR`."
        )


def check_start(
  experiment: experiment_lib.Experiment,
  meta: Mapping[str, Any],
  loaded: Iterable[str],
) -> None:
  """Checks that heads which were taken over still predict the same codes.

  Args:
    experiment: its data may bring codes.
    meta: of the checkpoint that a run starts from.
    loaded: names of the parameters that come from there.

  Raises:
    UserError: a head learned other codes than the cached ones; names both.
  """
  known = set(loaded)
  now = cached(experiment.parts.pipelines.values())
  before = {
    **dict.fromkeys(VISUAL, meta.get("visual_tokenizer")),
    **meta.get("cached_codes", {}),
  }
  for name, item in experiment.parts.objectives.items():
    objective, modality = item.objective, getattr(item.objective, "image", "")
    ours, theirs = now.get(modality), before.get(modality)
    if not ours or not theirs or ours == theirs:
      continue
    if "visual_tokenizer" not in getattr(objective, "needs_frozen", ()):
      continue  # It predicts no codes.
    for head in objective.heads(experiment.parts.info):
      if any(n.startswith(f"heads_{head}/") for n in known):
        raise errors.UserError(
          f"The head {head!r} of the objective {name!r} learned codes of the "
          f"tokenizer {theirs}, the cached ones (data.codes.path) are of "
          f"{ours}. Write them with that tokenizer, or start the head anew: "
          f"config.init.new=('heads_{head}/.*',) and the same in dropped."
        )
