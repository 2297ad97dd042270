"""What a config has to do in a step, as peers are told it."""

import dataclasses
from typing import Any

import ml_collections as mlc

from mmjax.bench.candidate import Tower, Work
from mmjax.build import parts as parts_lib
from mmjax.build import settings

CLASSIFICATION, CONTRASTIVE = "image_classification", "contrastive"
FLAVA, OTHER = "flava", "other"
# "other" is what no peer can do.
KINDS = (CLASSIFICATION, CONTRASTIVE, FLAVA, OTHER)
PAIR = {"image", "text"}
MIXTURE = ("contrastive", "masked_lm", "vision_token_prediction")


def of(config: mlc.ConfigDict) -> Work:
  """The work of a resolved config's step; touches no device.

  Raises:
    UserError: as `parts.make_parts`: parts that don't exist or don't fit.
  """
  parts = parts_lib.make_parts(config)
  encoders = parts.model.encoders
  specs = {k: s for fields in parts.fields.values() for k, s in fields.items()}
  sides = specs["image"].shape if "image" in specs else ()
  stem = getattr(encoders.get("image"), "stem", None)
  patch_size = getattr(stem, "patch_size", 0) if len(sides) == 3 else 0
  made = Work(
    kind=_kind(config),
    batch_size=settings.settings(config, "train").batch_size,
    image_size=sides[0] if patch_size else 0,
    patch_size=patch_size,
    image=_tower(encoders.get("image")),
    text=_tower(encoders.get("text")),
    fusion=_tower(parts.model.fusion),
    num_classes=max(map(_num_classes, parts.objectives.values())),
    vocab_size=parts.info.vocab_size,
    text_tokens=specs["text"].shape[0] if "text" in specs else 0,
    num_codes=parts.info.codebook_size,
  )
  if "image_hidden" not in specs or not made.patches:
    return made
  ratio = specs["image_hidden"].shape[-1] / made.patches
  drops = getattr(stem, "hidden", "") == "drop"
  return dataclasses.replace(made, hidden_ratio=round(ratio, 3), drops=drops)


def _tower(part: Any) -> Tower | None:
  """A part's size; those of the user's own need not have one."""
  size = getattr(part, "size", None)
  fields = ("embed_dim", "num_layers", "num_heads", "mlp_dim")
  if not all(hasattr(size, field) for field in fields):
    return None
  return Tower(*(getattr(size, field) for field in fields))


def _num_classes(item: Any) -> int:
  return getattr(item.objective, "num_classes", 0)


def _kind(config: mlc.ConfigDict) -> str:
  """By what a config names; its files of the user's own are "other"."""
  if len(config.tasks) != 1:
    return OTHER
  (task,) = config.tasks.values()
  names = sorted(section.name for section in task.objectives.values())
  encoders = config.model.encoders
  image = encoders.get("image")
  if not image or image.name != "vit" or image.stem != "patch":
    return OTHER
  if set(encoders) == {"image"} and names == ["classification"]:
    (objective,) = task.objectives.values()
    plain = not objective.given and not objective.multi_label
    return CLASSIFICATION if plain else OTHER
  if set(encoders) != PAIR or encoders.text.name != "text":
    return OTHER
  if names == ["contrastive"]:
    return CONTRASTIVE
  fused = config.model.fusion and config.model.fusion.name == "joint"
  return FLAVA if fused and set(MIXTURE) <= set(names) else OTHER


def flops(work: Work) -> float:
  """Of a step as peers do it, 2 per multiply-add; 0 of what none can do.

  Training is 3 times the forward pass. Attention counts in full; softmax,
  norms, optimizer and what is computed again don't. Nothing is dropped, and
  `flava` runs each tower on the clean and on the masked batch, as FLAVA does
  (Singh et al. 2022, arXiv:2112.04482); heads at hidden positions alone.
  """
  image = work.image and stack_flops(work.image, work.patches)
  text = work.text and stack_flops(work.text, work.text_tokens)
  if work.kind == CLASSIFICATION:
    forward = image + _stem(work) + 2 * work.image.width * work.num_classes
  elif work.kind == CONTRASTIVE:
    shared = 2 * work.image.width * (work.image.width + work.text.width)
    forward = image + _stem(work) + text + shared
  elif work.kind == FLAVA:
    fused = stack_flops(work.fusion, work.patches + work.text_tokens)
    codes = work.hidden_ratio * work.patches * work.num_codes
    words = 0.15 * work.text_tokens * work.vocab_size
    heads = 2 * work.fusion.width * (codes + words)
    forward = 2 * (image + _stem(work) + text) + fused + heads
  else:
    return 0.0
  return 3.0 * work.batch_size * forward


def stack_flops(tower: Tower, tokens: int) -> float:
  """Of the forward pass of one example: L n (8 d^2 + 4 d f + 4 n d)."""
  d, f = tower.width, tower.mlp_dim
  return tower.layers * tokens * (8.0 * d * d + 4 * d * f + 4 * tokens * d)


def _stem(work: Work) -> float:
  return 2.0 * work.patches * 3 * work.patch_size**2 * work.image.width


def tokens(work: Work) -> int:
  """Patches and text tokens of an example, hidden ones included."""
  return work.patches + work.text_tokens
