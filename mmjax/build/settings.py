"""The groups of a config, each as a typed dataclass with its defaults."""

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc

from mmjax import evaluators, models, objectives
from mmjax.core import config as config_lib
from mmjax.core import errors, registry
from mmjax.data import mixture, pipeline, sections, tokenizer
from mmjax.data.transforms import (
  audio,
  conversation,
  image,
  label,
  patches,
  rand_augment,
  text,
  video,
)
from mmjax.finetune.lora import Lora
from mmjax.generate.settings import GenerationSettings
from mmjax.models.layers.log_mel import LogMelOptions
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.spec_augment import SpecAugmentOptions
from mmjax.sharding.mesh import MeshShape
from mmjax.train.optimizer import OptimizerSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings:
  """How long and how large."""

  num_steps: int = 1000  # Optimizer steps.
  batch_size: int = 64  # Examples a step and task, over all hosts.
  # Tokens of text instead, padding included: of a bucket of `data.buckets` a
  # batch holds so many examples, rounded down to a multiple of
  # `batch_multiple`. 0 = by `batch_size`, which evaluators have anyway.
  tokens_per_batch: int = 0
  batch_multiple: int = 8  # A multiple of devices x `accumulate`.
  accumulate: int = 1  # Micro-batches a step.
  seed: int = 0

  def __post_init__(self):
    least = dict(num_steps=1, batch_size=1, accumulate=1)
    least |= dict(tokens_per_batch=0, batch_multiple=1)
    for name, low in least.items():
      if getattr(self, name) < low:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected {low} or more."
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixingSettings:
  """How often mixture="sample" draws each task."""

  # "fixed": by `tasks.<name>.rate`; "proportional": by that times
  # size^(1 / temperature), the size of the task's data.
  rates: str = "fixed"
  temperature: float = 1.0

  def __post_init__(self):
    if self.rates not in mixture.RATES:
      raise errors.unknown("kind of rates", self.rates, mixture.RATES)
    if not self.temperature > 0.0:
      raise errors.UserError(f"temperature={self.temperature}, expected > 0.")
    if self.rates == "fixed" and self.temperature != 1.0:
      raise errors.UserError(
        f"temperature={self.temperature} changes nothing with rates='fixed'; "
        "set rates='proportional', or temperature=1.0."
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings(MeshShape):
  """The mesh, and the rules that place arrays on it."""

  rules: str = "data_parallel"
  # Logical axis -> mesh axis (or several, or None), in place of the table's,
  # e.g. dict(vocab="fsdp"). See `core.axes`.
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def shape(self) -> MeshShape:
    """The mesh alone."""
    fields = {
      f.name: getattr(self, f.name) for f in dataclasses.fields(MeshShape)
    }
    return MeshShape(**fields)


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitSettings:
  """Where parameters come from."""

  from_checkpoint: str = ""  # A workdir; "" = from scratch.
  step: str = "latest"  # "latest", "best" or a number.
  ema: bool = False  # The moving averages of the parameters that have one.
  rename: tuple[tuple[str, str], ...] = ()  # (pattern, name in the model).
  new: tuple[str, ...] = ()  # Patterns of parameters that start fresh.
  dropped: tuple[str, ...] = ()  # Patterns of the checkpoint's, not used.
  # Patterns of the checkpoint's that alone are used; empty = all.
  only: tuple[str, ...] = ()
  # Patterns of position tables of other sizes, see `finetune.resize`; for
  # grids that are not square (pattern, "8x4", "16x4").
  resize: tuple[Any, ...] = ()
  resize_method: str = "linear"  # See `finetune.resize.METHODS`.
  # How a picture's encoder becomes a clip's, see `finetune.inflate.KINDS`.
  inflate: str = ""
  # File of `mmjax weights lora`, put on top; merged into the kernels if the
  # model has no adapters.
  lora: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneSettings:
  """Which parameters are trained, and how: `trainable` without `frozen`."""

  trainable: tuple[str, ...] = (".*",)  # Empty: a model that is only used.
  frozen: tuple[str, ...] = ()
  # Adapters, see `finetune.lora.Lora`: these are trained then, and what
  # `trainable` names, unless that is everything.
  lora: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Factor on the learning rate from one layer to the one before; 1 = off.
  layer_decay: float = 1.0
  # (steps, patterns): trained once so many steps are done.
  unfreeze: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
  """When to save, what to keep."""

  every_steps: int = 0  # 0 = at the end only.
  keep: int = 2  # Newest checkpoints.
  best_metric: str = ""  # "<evaluator>/<metric>": its best is kept too.
  best_mode: str = "max"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogSettings:
  """What to write while training."""

  every_steps: int = 50
  tensorboard: bool = True
  # Run all evaluators after the last step; if not, `mmjax evaluate` does.
  evaluate_at_end: bool = True
  # Steps between measurements of how the objectives' gradients lie to each
  # other, see `train.conflict`; 0 = never.
  conflict_every: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSettings:
  """The parts of the model; each names what it is and its fields."""

  encoders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  fusion: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Of pictures, and of clips unless `tokenizers` has one for these.
  visual_tokenizer: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Of other modalities, e.g. dict(audio=dict(name="random_projection", ..)).
  tokenizers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  decoders: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # Workdir of a run whose model is learned from, frozen; see `teacher.py`.
  teacher: str = ""
  shared_dim: int = 0  # Channels of the shared space; 0 = none.
  # What its similarities are first multiplied by; 0 = as objectives ask for,
  # 1 / 0.07 if they don't.
  shared_scale: float = 0.0
  # The largest that it may become; 0 = no limit (and none below), as in SigLIP.
  shared_max_scale: float = 100.0
  # By modality, how it gets there: "linear" (the default), "affine" (with a
  # bias), or "none": its features have that many channels.
  shared_projections: Mapping[str, str] = dataclasses.field(
    default_factory=dict
  )
  # Rows of token tables and logits; 0 = as the tokenizer has tokens. What is
  # more stands for none: a multiple of 128 suits matrix units.
  vocab_size: int = 0
  precision: str = "auto"  # See `core.precision`.


GROUPS: dict[str, Any] = {
  "data": pipeline.DataConfig,
  "model": ModelSettings,
  "train": TrainSettings,
  "mixing": MixingSettings,
  "mesh": MeshSettings,
  "optimizer": OptimizerSettings,
  "init": InitSettings,
  "finetune": FinetuneSettings,
  "checkpoint": CheckpointSettings,
  "log": LogSettings,
}
# Arguments of plug-ins that are sections of their own.
SECTIONS = (
  LogMelOptions,
  SpecAugmentOptions,
  StackOptions,
  rand_augment.RandAugment,
)
# A weight of an objective and a rate of a task may also be a
# `core.piecewise.Piecewise`, as a section.
TASK = {"weight": 1.0, "rate": 1.0, "data": {}, "objectives": {}}


def defaults() -> dict[str, Any]:
  """Every group with its defaults, as plain values."""
  groups = {name: _plain_defaults(cls) for name, cls in GROUPS.items()}
  return {
    "stage": "train",
    "search_path": "",  # Folder of plug-ins; the command line fills it in.
    "mixture": "sum",
    "weighting": {"name": "constant"},
    "tasks": {},
    "evaluators": {},
    **groups,
  }


def _plain_defaults(cls: Any) -> dict[str, Any]:
  return {
    f.name: dict(v) if isinstance(v, Mapping) else v
    for f in dataclasses.fields(cls)
    for v in [getattr(cls(), f.name)]
  }


def resolve(config: mlc.ConfigDict) -> mlc.ConfigDict:
  """Completes a config: every key that mmjax knows stands in the result.

  Raises:
    UserError: an unknown group, key, plug-in or mixture.
  """
  resolved = config_lib.complete(config, defaults())
  with resolved.unlocked():
    for name, task in resolved.tasks.items():
      for key in task:
        if key not in TASK:
          raise errors.unknown(f"key of config.tasks.{name}", key, TASK)
      _fill_keys(task, **TASK)
      for objective in task.objectives.values():
        if "weight" not in objective:
          objective.weight = 1.0
        _fill("objective", objective, objectives.OBJECTIVES)
    _fill("weighting", resolved.weighting, objectives.WEIGHTINGS)
    for encoder in resolved.model.encoders.values():
      _fill("encoder", encoder, models.ENCODERS)
    for decoder in resolved.model.decoders.values():
      _fill("decoder", decoder, models.DECODERS)
    if resolved.model.fusion:
      _fill("fusion", resolved.model.fusion, models.FUSIONS)
    if resolved.model.visual_tokenizer:
      _fill(
        "visual tokenizer",
        resolved.model.visual_tokenizer,
        models.VISUAL_TOKENIZERS,
      )
    for tokenizer in resolved.model.tokenizers.values():
      _fill("tokenizer", tokenizer, models.VISUAL_TOKENIZERS)
    for evaluator in resolved.evaluators.values():
      # `data` changes what `task` trains on; without a task, `config.data`.
      _fill_keys(evaluator, every_steps=0, task="", data={})
      _fill("evaluator", evaluator, evaluators.EVALUATORS)
      if _takes(evaluator, "generate"):
        _fill_keys(evaluator, generation={})
        _fill_fields(evaluator.generation, GenerationSettings)
    _fill_data(resolved.data)
    if resolved.finetune.lora:
      _fill_fields(resolved.finetune.lora, Lora)
  resolved.lock()
  for group in GROUPS:
    settings(resolved, group)
  return resolved


def _fill_data(data: mlc.ConfigDict) -> None:
  """Adds the defaults of the transforms whose sections are there."""
  if data.image:
    _fill_fields(data.image, image.ImageTransform)
    _fill_keys(data.image, mask={}, second="", patches={}, max_images=0)
    if data.image.patches:
      _fill_fields(data.image.patches, patches.PatchTransform)
    if data.image.mask:
      _fill_fields(data.image.mask, image.MaskImage, without=("grid",))
  if data.text:
    _fill_fields(data.text, text.TextTransform, without=("output",))
    _fill_keys(data.text, mask={}, pack=False, tokenizer=tokenizer.STARTER)
    _fill_keys(data.text, **{name: {} for name in sections.DECODING})
    for name, transform in sections.DECODING.items():
      if data.text[name]:
        _fill_fields(data.text[name], transform)
    if not data.text.field:
      _fill_fields(data.text, text.Caption)
    if data.text.mask:
      _fill_fields(data.text.mask, text.MaskText, without=("max_tokens",))
  if data.answer:
    _fill_fields(data.answer, text.TextTransform, without=("output",))
  if data.conversation:
    _fill_fields(data.conversation, conversation.ConversationTransform)
    _fill_keys(
      data.conversation,
      pack=False,
      reply=False,
      tokenizer=tokenizer.STARTER,
      image={},
    )
    _fill_fields(
      data.conversation.image, image.ImageTransform, without=("field",)
    )
  if data.video:
    _fill_fields(data.video, video.VideoTransform)
    _fill_keys(data.video, mask={})
    if data.video.mask:
      _fill_fields(data.video.mask, video.MaskVideo, without=("grid",))
  if data.audio:
    _fill_fields(data.audio, audio.AudioTransform)
    _fill_keys(data.audio, mask={})
    if data.audio.mask:
      _fill_fields(data.audio.mask, audio.MaskAudio)
  if data.label:
    _fill_fields(data.label, label.LabelTransform, without=("names",))
    _fill_keys(data.label, num_classes=0)


def _fill_keys(section: mlc.ConfigDict, **known: Any) -> None:
  for name, value in known.items():
    if name not in section:
      section[name] = mlc.ConfigDict(value) if value == {} else value


def _fill(kind: str, section: mlc.ConfigDict, table: Mapping[str, Any]) -> None:
  """Adds the defaults of the plug-in that a section names."""
  if "name" not in section:
    raise errors.UserError(
      f"This {kind} has no 'name': {section.to_dict()}. Known: {sorted(table)}."
    )
  factory = registry.lookup(kind, section.name, table)
  _fill_fields(section, factory, without=("name",))


def _takes(section: mlc.ConfigDict, name: str) -> bool:
  """Whether an evaluator is made with a fact of this name."""
  factory = registry.lookup("evaluator", section.name, evaluators.EVALUATORS)
  return name in (registry.field_names(factory) or ())


def _fill_fields(
  section: mlc.ConfigDict, factory: Any, *, without: tuple[str, ...] = ()
) -> None:
  for name, parameter in inspect.signature(factory).parameters.items():
    if isinstance(parameter.default, SECTIONS):
      _fill_keys(section, **{name: {}})
      _fill_fields(section[name], type(parameter.default))
      continue
    simple = isinstance(parameter.default, (bool, int, float, str, tuple))
    if simple and name not in section and name not in without:
      section[name] = parameter.default
    elif (
      name in section
      and isinstance(parameter.default, float)
      and type(section[name]) is int
    ):
      section[name] = float(section[name])


def settings(config: mlc.ConfigDict, group: str) -> Any:
  """One group as its dataclass.

  Raises:
    UserError: an unknown key or a wrong value.
  """
  fields = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in config[group].to_dict().items()
  }
  return registry.construct(group, GROUPS[group], fields)
