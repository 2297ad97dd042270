"""CLIP (Radford et al. 2021, arXiv:2103.00020) as transformers has it.

A text is pooled at its end token: by us the last that counts, by theirs the
first of that id, or the highest id. A tokenizer of CLIP makes these the same.
"""

from mmjax.convert import lines, pixels
from mmjax.convert.families import two_towers
from mmjax.convert.families.two_towers import IMAGE, PICTURES, POSITIONS, TEXT
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Matrix, WithClass
from mmjax.core import errors

VISION, TEXTS = "vision_model.embeddings", "text_model.embeddings"
IMAGE_OUT = "shared_space/projections_image/kernel"
TEXT_OUT = "shared_space/projections_text/kernel"
# How its pictures are normalised.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_SAME = dict(num_hidden_layers=12, hidden_act="quick_gelu", layer_norm_eps=1e-5)
_TEXT = dict(hidden_size=512, intermediate_size=2048, num_attention_heads=8)
_TEXT |= dict(_SAME, vocab_size=49408, max_position_embeddings=77)
_IMAGE = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
_IMAGE |= dict(_SAME, image_size=224, patch_size=32)
DEFAULTS = {
  "": dict(projection_dim=512),
  "text_config": _TEXT,
  "vision_config": _IMAGE,
}


def _complete(source, has):
  return {
    **lines.filled(source, DEFAULTS),
    **pixels.complete(source, has, MEAN, STD),
  }


def _ending(eos_id):
  if eos_id == 2:
    raise errors.UserError(
      "The tokenizer ends texts with the id 2, which transformers' CLIP takes "
      "for 'the highest id of the text', and would pool another token. Train "
      "with a tokenizer that ends them with another id."
    )
  return {"text_config.eos_token_id": eos_id}


KEYS = (
  *two_towers.keys("info_nce"),
  *lines.vit(IMAGE),
  lines.ours(f"{IMAGE}.patch_bias", False),
  lines.ours(f"{IMAGE}.input_norm", True),
  lines.ours(f"{TEXT}.causal", True),
  lines.ours(f"{TEXT}.attend_padding", False),
  lines.key("model.shared_dim", "projection_dim"),
)
FAMILY = Family(
  name="clip",
  keys=KEYS,
  rules=(
    two_towers.tables(
      f"{TEXTS}.token_embedding.weight",
      f"{TEXTS}.position_embedding.weight",
      f"{VISION}.patch_embedding.weight",
    ),
    rule(
      ["encoders_image/cls", POSITIONS],
      [f"{VISION}.class_embedding", f"{VISION}.position_embedding.weight"],
      WithClass(lead=False),
    ),
    lines.norm("encoders_image/first_norm", "vision_model.pre_layrnorm"),
    two_towers.layers("image", "vision_model", "post_layernorm"),
    two_towers.layers("text", "text_model", "final_layer_norm"),
    rule(IMAGE_OUT, "visual_projection.weight", Matrix()),
    rule(TEXT_OUT, "text_projection.weight", Matrix()),
    rule("shared_space/log_scale", "logit_scale"),
  ),
  num_layers=two_towers.LAYERS,
  architectures={"": "CLIPModel"},
  complete=_complete,
  ending=_ending,
  files=pixels.file("CLIPImageProcessor", PICTURES),
)
