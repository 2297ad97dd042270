"""Makes all that a config describes, and checks that it fits together."""

import dataclasses
from collections.abc import Mapping

import ml_collections as mlc
import numpy as np

from mmjax.build import mixing
from mmjax.build.model import make_model
from mmjax.build.pipelines import class_facts, make_pipelines
from mmjax.build.plug_in import plug_in
from mmjax.core import errors, piecewise
from mmjax.core.batch import MODALITIES, SEVERAL, FieldSpec
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.data import mixture, pipeline
from mmjax.models.multimodal import MultimodalModel
from mmjax.objectives import OBJECTIVES
from mmjax.objectives.multitask import Objectives, WeightedObjective
from mmjax.objectives.weighting import Weighting


@dataclasses.dataclass(frozen=True)
class Parts:
  """All that a config describes, before anything is placed on a device."""

  pipelines: Mapping[str, pipeline.Pipeline]
  objectives: Objectives
  model: MultimodalModel
  info: ModelInfo
  mixture: mixture.Mixture
  weighting: Weighting

  @property
  def fields(self) -> dict[str, dict[str, FieldSpec]]:
    """What a batch holds, by task."""
    return {task: dict(p.specs) for task, p in self.pipelines.items()}


def make_parts(config: mlc.ConfigDict) -> Parts:
  """Makes data, objectives and model, and checks that they fit."""
  pipelines = make_pipelines(config)
  objectives = make_objectives(config, pipelines)
  plain = {name: item.objective for name, item in objectives.items()}
  model, info = make_model(config, pipelines, plain)
  check_fields(objectives, info, pipelines)
  check_modalities(model, objectives, info, pipelines)
  check_causal(model, plain)
  return Parts(
    pipelines,
    objectives,
    model,
    info,
    mixing.make_mixture(config, pipelines, objectives),
    mixing.make_weighting(config, objectives),
  )


def make_objectives(
  config: mlc.ConfigDict, pipelines: Mapping[str, pipeline.Pipeline]
) -> Objectives:
  """All objectives of all tasks, by name.

  Raises:
    UserError: a name stands in two tasks, or all weights are zero.
  """
  objectives: dict[str, WeightedObjective] = {}
  for task_name, task in config.tasks.items():
    facts = class_facts(pipelines[task_name])
    for name, section in task.objectives.items():
      if name in objectives:
        raise errors.UserError(
          f"Two tasks have an objective {name!r}; names must differ."
        )
      path = f"tasks.{task_name}.objectives.{name}"
      made = plug_in(
        "objective", path, section, OBJECTIVES, facts, skip=("weight",)
      )
      weight = mixing.number(f"{path}.weight", section.weight)
      factor = mixing.constant(f"tasks.{task_name}.weight", task.weight)
      objectives[name] = WeightedObjective(
        task_name, made, piecewise.times(weight, factor)
      )
  if not any(piecewise.highest(item.weight) for item in objectives.values()):
    raise errors.UserError("The weights of all objectives are zero.")
  return objectives


def check_fields(
  objectives: Objectives,
  info: ModelInfo,
  pipelines: Mapping[str, pipeline.Pipeline],
) -> None:
  """Checks that each task's data has what its objectives read.

  Raises:
    UserError: names objective, field, what it expects and what there is.
  """
  for name, item in objectives.items():
    have = pipelines[item.task].specs
    for field, want in item.objective.fields(info).items():
      if field not in have:
        raise errors.UserError(
          f"The objective {name!r} reads the field {field!r} ({want}), "
          f"which the data of task {item.task!r} lacks."
          f"{errors.nearest(field, have)} It has {sorted(have)}."
        )
      if not _fits(want, have[field]):
        raise errors.UserError(
          f"The objective {name!r} expects {field!r} as {want}, the data "
          f"of task {item.task!r} has {have[field]}."
        )


def check_modalities(
  model: MultimodalModel,
  objectives: Objectives,
  info: ModelInfo,
  pipelines: Mapping[str, pipeline.Pipeline],
) -> None:
  """Checks that data and model have the same modalities.

  Raises:
    UserError: an encoder without data, or data that nothing can read.
  """
  read: dict[str, set[str]] = {task: set() for task in pipelines}
  for item in objectives.values():
    read[item.task].update(item.objective.fields(info))
  for task, source in pipelines.items():
    for name in source.specs:
      known = name in model.encoders or name in read[task]
      if name in MODALITIES and not known:
        raise errors.UserError(
          f"The data of task {task!r} has {name!r}, but the model has no "
          f"encoder for it and no objective reads it: set config.model."
          f"encoders.{name}, or config.data.{name}=None. Encoders: "
          f"{sorted(model.encoders)}."
        )
  given = {name for source in pipelines.values() for name in source.specs}
  given |= {one for several, one in SEVERAL.items() if several in given}
  for name in model.encoders:
    if name in MODALITIES and name not in given:
      raise errors.UserError(
        f"config.model.encoders has {name!r}, which the data of no task has: "
        f"set config.data.{name}, or leave the encoder out. The data have "
        f"{sorted(given & set(MODALITIES))}."
      )


def check_causal(
  model: MultimodalModel, objectives: Mapping[str, Objective]
) -> None:
  """Checks that no encoder shows an objective what it has to predict.

  Raises:
    UserError: an objective's `needs_causal` names an encoder that is not.
  """
  for name, objective in objectives.items():
    for encoder in getattr(objective, "needs_causal", ()):
      if not getattr(model.encoders.get(encoder), "causal", True):
        raise errors.UserError(
          f"The objective {name!r} predicts each token from those before it, "
          f"but the encoder {encoder!r} sees all: set config.model.encoders."
          f"{encoder}.causal=True."
        )


def _fits(want: FieldSpec, have: FieldSpec) -> bool:
  return np.dtype(want.dtype) == np.dtype(have.dtype) and any(
    len(shape) == len(have.shape)
    and all(w is None or w == h for w, h in zip(shape, have.shape, strict=True))
    for shape in (want.shape, *want.or_shapes)
  )
