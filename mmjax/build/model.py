"""Makes the model, with the heads that the objectives bring."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc
from flax import linen as nn

from mmjax import models
from mmjax.build import finetuning
from mmjax.build import pipelines as pipelines_lib
from mmjax.build import settings as settings_lib
from mmjax.build import teacher as teacher_lib
from mmjax.build.plug_in import plug_in
from mmjax.core import errors, precision
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.data import pipeline
from mmjax.models.multimodal import MultimodalModel
from mmjax.models.shared_space import SharedSpace


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
  facts = pipelines_lib.common_facts(config, pipelines)
  teacher = None
  if config.model.teacher:
    teacher = teacher_lib.read_config(config.model.teacher)
  return assemble(config, facts, objectives, teacher)


def assemble(
  config: mlc.ConfigDict,
  facts: Mapping[str, Any],
  objectives: Mapping[str, Objective],
  teacher: mlc.ConfigDict | None = None,
) -> tuple[MultimodalModel, ModelInfo]:
  """`make_model` from what the data say, see `pipelines.common_facts`.

  Args:
    config: the groups `model` and `finetune` are read.
    facts: what the data say.
    objectives: by name.
    teacher: resolved config of the teacher's run, if there is one.
  """
  group = settings_lib.settings(config, "model")
  policy = precision.policy(group.precision)
  facts = {**facts, "precision": policy}
  encoders, fusion = make_towers("model", group, facts)
  teaching, taught = make_teacher(teacher, facts, objectives)
  decoders = {
    name: plug_in(
      "decoder",
      f"model.decoders.{name}",
      section,
      models.DECODERS,
      _with_grid(facts, name),
    )
    for name, section in group.decoders.items()
  }
  widths = taught.widths if taught else {}
  tokenizer = group.visual_tokenizer and make_tokenizer(
    "model.visual_tokenizer", group.visual_tokenizer, facts, widths
  )
  tokenizers = {
    name: make_tokenizer(
      f"model.tokenizers.{name}", section, facts, widths, name
    )
    for name, section in group.tokenizers.items()
  }
  asked = shared_space_options(objectives)
  if group.shared_scale:
    asked["init_scale"] = group.shared_scale
  space = make_space(group, tuple(sorted(encoders)), policy, asked)
  info = dataclasses.replace(
    model_info(encoders, fusion, facts),
    teacher=taught,
    codebook_size=tokenizer.num_codes if tokenizer else 0,
    codebook_sizes={
      **pipelines_lib.cached_codebook_sizes(facts),
      **{name: made.num_codes for name, made in tokenizers.items()},
    },
  )
  heads = make_heads(objectives, info, facts)
  model = MultimodalModel(
    encoders,
    fusion,
    space,
    heads,
    tokenizer or None,
    decoders,
    teacher=teaching,
    tokenizers=tokenizers or None,
    interceptor=finetuning.adapter(config),
  )
  return model, info


def _with_grid(facts, modality):
  """A decoder is told the grid of what it decodes, if the data say it."""
  name = f"{modality}_grid"
  return {**facts, "grid": facts[name]} if name in facts else facts


def make_towers(
  path: str, group: settings_lib.ModelSettings, facts: Mapping[str, Any]
) -> tuple[dict[str, nn.Module], Any]:
  """The encoders, and the fusion if there is one."""
  encoders = {
    name: plug_in(
      "encoder", f"{path}.encoders.{name}", section, models.ENCODERS, facts
    )
    for name, section in group.encoders.items()
  }
  fusion = group.fusion and plug_in(
    "fusion", f"{path}.fusion", group.fusion, models.FUSIONS, facts
  )
  return encoders, fusion or None


def model_info(
  encoders: Mapping[str, nn.Module], fusion: Any, facts: Mapping[str, Any]
) -> ModelInfo:
  """What the towers of a model say; those of the user's own need not."""
  sizes = {k: getattr(v, "size", None) for k, v in encoders.items()}
  fused = getattr(fusion, "size", None)
  return ModelInfo(
    embed_dim=fused.embed_dim if fused else 0,
    vocab_size=facts.get("vocab_size", 0),
    modalities=tuple(sorted(encoders)),
    widths={k: v.embed_dim for k, v in sizes.items() if v is not None},
    patch_dims={k: getattr(v, "patch_dim", 0) for k, v in encoders.items()},
  )


def make_teacher(
  config: mlc.ConfigDict | None,
  facts: Mapping[str, Any],
  objectives: Mapping[str, Objective],
) -> tuple[MultimodalModel | None, ModelInfo | None]:
  """The model of another run, with the heads that objectives ask of it.

  Args:
    config: of that run; None = no teacher.
    facts: what the data say that both read.
    objectives: by name; their `teacher_heads` are made.

  Raises:
    UserError: an objective asks for a teacher and there is none, or its data
      are others.
  """
  if config is None:
    for name, objective in objectives.items():
      if getattr(objective, "needs_teacher", False):
        raise errors.UserError(
          f"The objective {name!r} learns from a teacher: set "
          "config.model.teacher to the workdir of a trained model."
        )
    return None, None
  group = teacher_lib.readable(settings_lib.settings(config, "model"), facts)
  facts = teacher_lib.joint_facts(config, facts)
  encoders, fusion = make_towers("model.teacher", group, facts)
  info = model_info(encoders, fusion, facts)
  space = make_space(
    group, tuple(sorted(config.model.encoders)), facts["precision"], {}
  )
  asking = {k: v for k, v in objectives.items() if hasattr(v, "teacher_heads")}
  heads = make_heads(asking, info, facts, "teacher_heads")
  return MultimodalModel(encoders, fusion, space, heads), info


def make_space(
  group: settings_lib.ModelSettings,
  modalities: tuple[str, ...],
  policy: precision.Precision,
  asked: Mapping[str, float],
) -> SharedSpace | None:
  """The shared space, if there is one; `asked` by objectives."""
  if not group.shared_dim:
    return None
  return SharedSpace(
    group.shared_dim,
    modalities,
    max_scale=group.shared_max_scale,
    kinds=dict(group.shared_projections),
    precision=policy,
    **asked,
  )


def make_tokenizer(
  path: str,
  section: Mapping[str, Any],
  facts: Mapping[str, Any],
  widths: Mapping[str, int],
  modality: str = "",
) -> nn.Module:
  """The tokenizer of a modality, or of pictures and clips alike.

  `widths` are those of the teacher's encoders, which a tokenizer may decode to.
  """
  clips = modality == "video" or "image_size" not in facts
  if clips and "video_size" in facts:
    facts = {**facts, "image_size": facts["video_size"]}  # Of frames.
  width = widths.get(modality or ("video" if clips else "image"))
  if width:
    facts = {**facts, "feature_dim": width}
  return plug_in("tokenizer", path, section, models.VISUAL_TOKENIZERS, facts)


def shared_space_options(
  objectives: Mapping[str, Objective],
) -> dict[str, Any]:
  """What objectives ask of the shared space, in their `shared_space`.

  Raises:
    UserError: two objectives ask for different things.
  """
  options: dict[str, Any] = {}
  for name, objective in objectives.items():
    for option, value in getattr(objective, "shared_space", {}).items():
      if options.setdefault(option, value) != value:
        raise errors.UserError(
          f"Two objectives ask for a shared space of other {option}: "
          f"{options[option]} and {value} (of {name!r})."
        )
  return options


def make_heads(
  objectives: Mapping[str, Objective],
  info: ModelInfo,
  facts: Mapping[str, Any],
  method: str = "heads",
) -> dict[str, nn.Module]:
  """The heads that objectives bring, each made once.

  Raises:
    UserError: two objectives bring different heads of one name.
  """
  wanted: dict[str, Any] = {}
  for name, objective in objectives.items():
    for head, what in getattr(objective, method)(info).items():
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
