"""Makes pipelines, the model, the objectives and the evaluators."""

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_collections as mlc
import numpy as np
from flax import linen as nn

from mmjax import models
from mmjax.build import settings as settings_lib
from mmjax.core import errors, precision, registry
from mmjax.core.batch import MODALITIES, FieldSpec
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.data import loader, pipeline
from mmjax.evaluators import EVALUATORS
from mmjax.models.multimodal import MultimodalModel
from mmjax.models.shared_space import SharedSpace
from mmjax.objectives import OBJECTIVES
from mmjax.objectives.multitask import Objectives, WeightedObjective

# A group of a config, or the plain dict it stands for.
Section = Mapping[str, Any] | mlc.ConfigDict


def make_pipelines(config: mlc.ConfigDict) -> dict[str, pipeline.Pipeline]:
  """One pipeline per task: `config.data` with the task's changes.

  Raises:
    UserError: no task, or a task without objectives.
  """
  if not config.tasks:
    raise errors.UserError("config.tasks is empty: nothing to train.")
  if config.mixture not in settings_lib.MIXTURES:
    raise errors.unknown("mixture", config.mixture, settings_lib.MIXTURES)
  pipelines = {}
  for name, task in config.tasks.items():
    if not task.objectives:
      raise errors.UserError(f"config.tasks.{name}.objectives is empty.")
    pipelines[name] = make_pipeline(config, task.data)
  return pipelines


def make_pipeline(
  config: mlc.ConfigDict, *changes: Section
) -> pipeline.Pipeline:
  """A pipeline of `config.data` with some keys changed."""
  merged = config.data.to_dict()
  for change in changes:
    merged = _merge(merged, _plain(change))
  return pipeline.build_pipeline(merged)


def _merge(
  base: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
  merged = dict(base)
  for key, value in changes.items():
    if key not in base and base:
      raise errors.unknown("key of config.data", key, base)
    inner = base.get(key)
    nested = isinstance(value, Mapping) and isinstance(inner, Mapping)
    merged[key] = _merge(inner, value) if nested else value
  return merged


def _plain(value: Any) -> Any:
  return value.to_dict() if isinstance(value, mlc.ConfigDict) else value


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
      objectives[name] = WeightedObjective(
        task_name, made, float(task.weight) * float(section.weight)
      )
  if not any(item.weight for item in objectives.values()):
    raise errors.UserError("The weights of all objectives are zero.")
  return objectives


def class_facts(source: pipeline.Pipeline) -> dict[str, Any]:
  """What the data says about classes; nothing if it has no label."""
  names = tuple(source.class_names or ())
  return {"num_classes": len(names), "class_names": names} if names else {}


def plug_in(
  kind: str,
  path: str,
  section: Section,
  table: Mapping[str, Any],
  facts: Mapping[str, Any],
  skip: tuple[str, ...] = (),
) -> Any:
  """Makes what `section["name"]` names, with the section's other fields.

  `facts` are what the config need not say; each is passed if the factory has
  an argument of that name. A fact that the section also sets must agree.
  """
  fields = dict(_plain(section))
  factory = registry.lookup(kind, fields.pop("name", ""), table)
  accepted = registry.field_names(factory)
  for key in fields:
    if accepted is not None and key not in (*accepted, *skip):
      known = sorted({*accepted, *skip} - set(facts))
      raise errors.UserError(
        f"Unknown key 'config.{path}.{key}'.{errors.nearest(key, known)} "
        f"{factory.__name__} takes {known}."
      )
  for key in skip:
    fields.pop(key, None)
  known = inspect.signature(factory).parameters
  given = {key: value for key, value in facts.items() if key in known}
  for key, value in given.items():
    if isinstance(value, int) and fields.get(key, value) != value:
      raise errors.UserError(
        f"config.{path}.{key}={fields[key]} but the data has {value}."
      )
  return registry.construct(path, factory, fields, **given)


def make_model(
  config: mlc.ConfigDict,
  pipelines: Mapping[str, pipeline.Pipeline],
  objectives: Mapping[str, Objective],
) -> tuple[MultimodalModel, ModelInfo]:
  """The model with the heads that the objectives bring.

  Args:
    config: the group `model` is read.
    pipelines: by task; they give the vocabulary and the pictures' size.
    objectives: by name.
  """
  group = settings_lib.settings(config, "model")
  policy = precision.policy(group.precision)
  facts = common_facts(config, pipelines) | {"precision": policy}
  encoders = {
    name: plug_in(
      "encoder", f"model.encoders.{name}", section, models.ENCODERS, facts
    )
    for name, section in group.encoders.items()
  }
  fusion = group.fusion and plug_in(
    "fusion", "model.fusion", group.fusion, models.FUSIONS, facts
  )
  tokenizer = group.visual_tokenizer and plug_in(
    "visual tokenizer",
    "model.visual_tokenizer",
    group.visual_tokenizer,
    models.VISUAL_TOKENIZERS,
    # Frames are pictures to it.
    {"image_size": facts["video_size"], **facts}
    if "video_size" in facts
    else facts,
  )
  space = group.shared_dim and SharedSpace(
    group.shared_dim, tuple(sorted(encoders)), precision=policy
  )
  info = ModelInfo(
    embed_dim=fusion.size.embed_dim if fusion else 0,
    vocab_size=facts.get("vocab_size", 0),
    codebook_size=tokenizer.codebook.num_codes if tokenizer else 0,
    modalities=tuple(sorted(encoders)),
  )
  heads = make_heads(objectives, info, facts)
  model = MultimodalModel(
    encoders, fusion or None, space or None, heads, tokenizer or None
  )
  return model, info


def common_facts(
  config: mlc.ConfigDict, pipelines: Mapping[str, pipeline.Pipeline]
) -> dict[str, Any]:
  """What the data of all tasks say about the one model that they share.

  Raises:
    UserError: two tasks disagree.
  """
  facts: dict[str, Any] = {}
  said_by: dict[str, str] = {}
  for task, source in pipelines.items():
    said = model_facts(config, source)
    if source.tokenizer is not None:
      said["text_tokenizer"] = source.tokenizer.id
    for name, value in said.items():
      if name == "max_tokens":  # A model takes shorter texts too.
        value = max(value, facts.get(name, 0))
      elif facts.get(name, value) != value:
        raise errors.UserError(
          f"The tasks share one model, but {name} is {facts[name]} in the "
          f"data of {said_by[name]!r} and {value} in that of {task!r}."
        )
      facts[name], said_by[name] = value, task
  return facts


def model_facts(
  config: mlc.ConfigDict, main: pipeline.Pipeline
) -> dict[str, Any]:
  """What the data says about the model."""
  facts: dict[str, Any] = {}
  if main.tokenizer is not None:
    facts["vocab_size"] = main.tokenizer.vocab_size
    facts["max_tokens"] = main.specs["text"].shape[0]
  if "image" in main.specs and len(main.specs["image"].shape) == 3:
    facts["image_size"] = main.specs["image"].shape[0]
  for transform in main.transforms:
    if hasattr(transform, "facts"):
      facts.update(transform.facts())
  if "video" in main.specs:
    facts["num_frames"], facts["video_size"] = main.specs["video"].shape[:2]
  return facts


def make_heads(
  objectives: Mapping[str, Objective], info: ModelInfo, facts: Mapping[str, Any]
) -> dict[str, nn.Module]:
  """The heads that objectives bring, each made once.

  Raises:
    UserError: two objectives bring different heads of one name.
  """
  wanted: dict[str, Any] = {}
  for name, objective in objectives.items():
    for head, what in objective.heads(info).items():
      if head in wanted and wanted[head] != what:
        raise errors.UserError(
          f"Two objectives bring a head {head!r}: {wanted[head]} and "
          f"{what} (of {name!r})."
        )
      wanted[head] = what
  return {
    head: what
    if isinstance(what, nn.Module)
    else plug_in("head", f"heads.{head}", what, models.HEADS, facts)
    for head, what in wanted.items()
  }


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
  for name in model.encoders:
    if name in MODALITIES and name not in given:
      raise errors.UserError(
        f"config.model.encoders has {name!r}, which the data of no task has: "
        f"set config.data.{name}, or leave the encoder out. The data have "
        f"{sorted(given & set(MODALITIES))}."
      )


def _fits(want: FieldSpec, have: FieldSpec) -> bool:
  return np.dtype(want.dtype) == np.dtype(have.dtype) and any(
    len(shape) == len(have.shape)
    and all(w is None or w == h for w, h in zip(shape, have.shape, strict=True))
    for shape in (want.shape, *want.or_shapes)
  )


def make_evaluators(
  config: mlc.ConfigDict,
  objectives: Objectives,
  info: ModelInfo,
  batch_size: int,
) -> dict[str, Any]:
  """The evaluators by name; each opens its data only when it runs."""
  return {
    name: _make_evaluator(config, name, section, objectives, info, batch_size)
    for name, section in config.evaluators.items()
  }


def _make_evaluator(config, name, section, objectives, info, batch_size):
  if section.task and section.task not in config.tasks:
    raise errors.unknown(
      f"task of evaluators.{name}", section.task, config.tasks
    )
  task = config.tasks[section.task].data if section.task else {}
  main = make_pipeline(config, task, section.data)
  plain_objectives = {
    k: v.objective
    for k, v in objectives.items()
    if section.task in ("", v.task)
  }
  facts = {
    "batches": batches_of(main, batch_size),
    "tokenizer": main.tokenizer,
    **class_facts(main),
    "objectives": plain_objectives,
    "chance": {
      k: v.chance(info, batch_size) for k, v in plain_objectives.items()
    },
  }
  skip = ["every_steps", "data", "task"]
  for key, value in section.items():
    # `gallery_data` becomes the argument `gallery_batches`.
    if key.endswith("_data"):
      skip.append(key)
      facts[f"{key.removesuffix('_data')}_batches"] = batches_of(
        make_pipeline(config, task, value), batch_size
      )
  return plug_in(
    "evaluator", f"evaluators.{name}", section, EVALUATORS, facts, tuple(skip)
  )


def batches_of(
  source: pipeline.Pipeline, batch_size: int
) -> Callable[[], Iterator[dict[str, np.ndarray]]]:
  """A function that makes a fresh pass over a pipeline's examples."""
  return Passes(source, batch_size)


@dataclasses.dataclass(frozen=True)
class Passes:
  """Makes a fresh pass over a pipeline's examples whenever it is called."""

  source: pipeline.Pipeline
  batch_size: int

  def __call__(self) -> Iterator[dict[str, np.ndarray]]:
    return loader.eval_batches(self.source, batch_size=self.batch_size)


@dataclasses.dataclass(frozen=True)
class Parts:
  """All that a config describes, before anything is placed on a device."""

  pipelines: Mapping[str, pipeline.Pipeline]
  objectives: Objectives
  model: MultimodalModel
  info: ModelInfo

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
  return Parts(pipelines, objectives, model, info)
