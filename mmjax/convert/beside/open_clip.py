"""Reads the config that open_clip writes beside its weights."""

from typing import Any

from mmjax.convert.beside import pixels
from mmjax.convert.family import Source
from mmjax.core import errors

CONFIG, ACTIVATION = "open_clip_config.json", ("gelu", "quick_gelu")
_BOTH = dict(layers=12, mlp_ratio=4.0)
IMAGE = dict(_BOTH, width=768, head_width=64, patch_size=16, image_size=224)
TEXT = dict(_BOTH, width=512, heads=8, context_length=77, vocab_size=49408)
# Of what else stands there, the values that change nothing besides none.
HARMLESS = dict(
  pool_type=("tok", "argmax", "eos"),
  pos_embed_type=("learnable",),
  proj_type=("linear",),
  block_type=("default",),
)
# Of training alone, of the tokenizer, or said twice.
UNUSED = ("patch_dropout", "output_tokens", "hf_tokenizer_name", "pad_id")
UNUSED += (
  "tokenizer_kwargs",
  "tokenizer_mode",
  "eos_id",
  "final_ln_after_pool",
)


def _tower(config, name, known):
  """The config of a tower, in which nothing stands that is not known."""
  said = {k: v for k, v in config.get(name, {}).items() if k not in UNUSED}
  for key, value in said.items():
    if key not in known and value and value not in HARMLESS.get(key, ()):
      raise errors.UserError(
        f"{CONFIG} has {name}.{key}={value!r}, which models here cannot have; "
        f"of open_clip's, those are known that only say {sorted(known)}."
      )
  made = {**known, **said}
  if not isinstance(made["layers"], int):
    raise errors.UserError(
      f"{CONFIG}: {name} is a ResNet; only ViTs are known."
    )
  heads = made.get("heads") or made["width"] // made["head_width"]
  return dict(
    hidden_size=made["width"],
    num_hidden_layers=made["layers"],
    num_attention_heads=heads,
    intermediate_size=int(made["width"] * made["mlp_ratio"]),
    hidden_act=ACTIVATION[bool(config.get("quick_gelu"))],
    layer_norm_eps=1e-5,
  ), made


def complete(source: Source, has: set[str]) -> dict[str, Any]:
  """The config that transformers has of the same model.

  Raises:
    UserError: there is none, or it says what models here cannot be.
  """
  whole = source.beside.get(CONFIG, {})
  config = whole.get("model_cfg", whole)
  said, (mean, std) = whole.get("preprocess_cfg", {}), pixels.CLIP
  if "embed_dim" not in config:
    raise errors.UserError(
      f"There is no {CONFIG} beside the weights, or no embed_dim in it: write "
      "the model's config of open_clip there, as model_configs/ has it."
    )
  image, images = _tower(config, "vision_cfg", IMAGE)
  text, texts = _tower(config, "text_cfg", TEXT)
  image |= {k: images[k] for k in ("image_size", "patch_size")}
  text["vocab_size"] = texts["vocab_size"]
  text["max_position_embeddings"] = texts["context_length"]
  return {
    "projection_dim": config["embed_dim"],
    "image_mean": said.get("mean", mean),
    "image_std": said.get("std", std),
    **{f"vision_config.{k}": v for k, v in image.items()},
    **{f"text_config.{k}": v for k, v in text.items()},
  }
