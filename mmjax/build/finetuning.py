"""What `config.finetune` asks for: what is trained, how fast, from when on."""

from collections.abc import Mapping
from typing import Any

import ml_collections as mlc
import optax

from mmjax.build import settings as settings_lib
from mmjax.build import teacher
from mmjax.core import registry, trees
from mmjax.finetune import freeze, layer_decay
from mmjax.finetune import lora as lora_lib
from mmjax.models.layers.projection import Projection
from mmjax.train import optimizer

EVERYTHING = (".*",)


def lora(config: mlc.ConfigDict) -> lora_lib.Lora | None:
  """The section `finetune.lora`, if it is there.

  Raises:
    UserError: an unknown key or a wrong value.
  """
  section = settings_lib.settings(config, "finetune").lora
  if not section:
    return None
  section = {**section, "targets": tuple(section.get("targets", ()))}
  return registry.construct("finetune.lora", lora_lib.Lora, section)


def adapter(config: mlc.ConfigDict) -> lora_lib.Adapter | None:
  """What the model is watched by, if it has adapters.

  The teacher has none: it stays what it was.
  """
  found = lora(config)
  if found is None:
    return None
  frozen = settings_lib.settings(config, "finetune").frozen
  return lora_lib.Adapter(found, Projection, (*frozen, f"{teacher.PREFIX}.*"))


def trainable_mask(config: mlc.ConfigDict, params: Any) -> dict[str, bool]:
  """Says for each parameter whether it is trained.

  With adapters these alone are, and what `finetune.trainable` names besides;
  its default, everything, then counts as nothing.

  Args:
    config: the group `finetune` is read.
    params: tree of shapes.

  Raises:
    UserError: a pattern matches nothing, or nothing is left to train.
  """
  settings = settings_lib.settings(config, "finetune")
  trainable, frozen = tuple(settings.trainable), tuple(settings.frozen)
  found = lora(config)
  if found is not None:
    lora_lib.check(found, params)
    beside = () if trainable == EVERYTHING else trainable
    trainable = (lora_lib.ADAPTERS, *beside)
    frozen = lora_lib.left(frozen, params)
  mask = freeze.trainable_mask(params, trainable, frozen)
  return {n: t and not n.startswith(teacher.PREFIX) for n, t in mask.items()}


def make_optimizer(
  config: mlc.ConfigDict, params: Any, trainable: Mapping[str, bool]
) -> optax.GradientTransformation:
  """The optimizer of a run.

  Args:
    config: the groups `optimizer`, `finetune` and `train` are read.
    params: tree of shapes.
    trainable: by name.

  Raises:
    UserError: patterns that match no trained parameter, a wrong value.
  """
  settings = settings_lib.settings(config, "finetune")
  shapes = {n: tuple(x.shape) for n, x in trees.flatten(params).items()}
  trained = [n for n in shapes if trainable[n]]
  factors = layer_decay.factors(shapes, settings.layer_decay)
  return optimizer.make_optimizer(
    settings_lib.settings(config, "optimizer"),
    settings_lib.settings(config, "train").num_steps,
    trained,
    # Without decay, no step does more than it did.
    factors=factors if settings.layer_decay < 1 else optimizer.NOTHING,
    starts=freeze.first_steps(settings.unfreeze, trained),
  )
