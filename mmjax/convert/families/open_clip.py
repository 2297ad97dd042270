"""CLIP as open_clip (Ilharco et al. 2021, doi:10.5281/zenodo.5143773) saves it.

Those whose towers are its own transformers: pictures in patches, a class token.
"""

from mmjax.convert import lines
from mmjax.convert.families import clip, two_towers
from mmjax.convert.families.clip import IMAGE_OUT, TEXT_OUT
from mmjax.convert.families.two_towers import POSITIONS
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import Flat, Matrix, Merged, WithClass
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


def _complete(source, has):
  """The config that transformers has of the same model."""
  whole = source.beside.get(CONFIG, {})
  config, pixels = (
    whole.get("model_cfg", whole),
    whole.get("preprocess_cfg", {}),
  )
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
    "image_mean": pixels.get("mean", list(clip.MEAN)),
    "image_std": pixels.get("std", list(clip.STD)),
    **{f"{two_towers.PICTURES}{k}": v for k, v in image.items()},
    **{f"{two_towers.TEXTS}{k}": v for k, v in text.items()},
  }


def _layers(modality, theirs, norm):
  block, layer = (
    f"encoders_{modality}/stack/layer_{{i:02d}}",
    f"{theirs}transformer.resblocks.{{i}}",
  )
  return [
    *lines.merged(
      f"{block}/attention",
      f"{layer}.attn.in_proj_weight",
      f"{layer}.attn.in_proj_bias",
      Merged(0, Matrix()),
      Merged(0, Flat()),
    ),
    *lines.block(
      block,
      layer,
      attention_norm="ln_1",
      out="attn.out_proj",
      mlp_norm="ln_2",
      hidden="mlp.c_fc",
      mlp_out="mlp.c_proj",
    ),
    *lines.norm(f"encoders_{modality}/stack/norm", f"{theirs}{norm}"),
  ]


FAMILY = Family(
  name="open_clip",
  keys=clip.KEYS,
  rules=(
    two_towers.tables(
      "token_embedding.weight", "positional_embedding", "visual.conv1.weight"
    ),
    rule(
      ["encoders_image/cls", POSITIONS],
      ["visual.class_embedding", "visual.positional_embedding"],
      WithClass(lead=False),
    ),
    lines.norm("encoders_image/first_norm", "visual.ln_pre"),
    _layers("image", "visual.", "ln_post"),
    _layers("text", "", "ln_final"),
    rule(IMAGE_OUT, "visual.proj"),
    rule(TEXT_OUT, "text_projection"),
    rule("shared_space/log_scale", "logit_scale"),
    Ignored("attn_mask", "which tokens are later"),
  ),
  num_layers=two_towers.LAYERS,
  recognizes=lambda source: "visual.class_embedding" in source.specs,
  complete=_complete,
  writes=False,
)
