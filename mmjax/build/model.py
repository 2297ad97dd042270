"""Makes the model, with the heads that the objectives bring."""

from collections.abc import Mapping
from typing import Any

import ml_collections as mlc
from flax import linen as nn

from mmjax import models
from mmjax.build import pipelines as pipelines_lib
from mmjax.build import settings as settings_lib
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
  group = settings_lib.settings(config, "model")
  policy = precision.policy(group.precision)
  facts = pipelines_lib.common_facts(config, pipelines) | {"precision": policy}
  encoders = {
    name: plug_in(
      "encoder", f"model.encoders.{name}", section, models.ENCODERS, facts
    )
    for name, section in group.encoders.items()
  }
  decoders = {
    name: plug_in(
      "decoder", f"model.decoders.{name}", section, models.DECODERS, facts
    )
    for name, section in group.decoders.items()
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
    encoders,
    fusion or None,
    space or None,
    heads,
    tokenizer or None,
    decoders,
  )
  return model, info


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
