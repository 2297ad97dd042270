"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) as transformers has it.

And SigLIP 2 (Tschannen et al. 2025, arXiv:2502.14786) of a fixed size, which
is saved as SigLIP. Its texts are small letters, SigLIP's without punctuation
too: tokenizers that do not see to that themselves want them so.
"""

from mmjax.convert import lines, pixels
from mmjax.convert.families import two_towers
from mmjax.convert.families.two_towers import (
  IMAGE,
  PICTURES,
  POSITIONS,
  TEXT,
  TEXTS,
)
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Flat, Matrix, Merged

VISION, WORDS = "vision_model.embeddings", "text_model.embeddings"
POOL, HEAD = "encoders_image/pooling", "vision_model.head"
ATTENTION, IN = f"{HEAD}.attention", f"{HEAD}.attention.in_proj"
ACTIVATION, EPSILON = "gelu_pytorch_tanh", 1e-6
_SAME = dict(hidden_size=768, intermediate_size=3072, num_attention_heads=12)
_SAME |= dict(num_hidden_layers=12)
_SAME |= dict(hidden_act=ACTIVATION, layer_norm_eps=EPSILON)
DEFAULTS = {
  "text_config": dict(_SAME, vocab_size=32000, max_position_embeddings=64),
  "vision_config": dict(_SAME, image_size=224, patch_size=16),
}


def _complete(source, has):
  """What fills a text up stands with the tokenizer: SigLIP's </s>, or <pad>."""
  said = source.beside.get(lines.TOKENIZER, {})
  padded = said.get("pad_token") != said.get("eos_token")
  fill = "pad" if padded else "eos"
  return {
    "text_fill": source.config.get("text_fill", fill),  # As exports have it.
    **lines.filled(source, DEFAULTS),
    **pixels.complete(source, has),
  }


FAMILY = Family(
  name="siglip",
  keys=(
    # "siglip2" takes pictures of any shape (NaFlex), and resizes its positions.
    lines.theirs("model_type", "siglip"),
    *two_towers.keys("sigmoid"),
    *lines.vit(IMAGE, pool="map"),
    lines.ours(f"{IMAGE}.patch_bias", True),
    lines.ours(f"{IMAGE}.input_norm", False),
    # Those of the head are fixed.
    lines.ours(f"{IMAGE}.stack.activation", "gelu_tanh"),
    lines.ours(f"{IMAGE}.stack.norm_epsilon", EPSILON),
    lines.theirs(f"{PICTURES}hidden_act", ACTIVATION),
    lines.theirs(f"{PICTURES}layer_norm_eps", EPSILON),
    lines.theirs(f"{PICTURES}vision_use_head", True),
    lines.ours(f"{TEXT}.causal", False),
    lines.ours(f"{TEXT}.attend_padding", True),
    lines.ours("data.text.bos", False),
    lines.key("data.text.fill", "text_fill"),
    lines.key(
      "model.shared_dim",
      f"{TEXTS}projection_size",
      default=lambda c: c[f"{TEXTS}hidden_size"],
    ),
    lines.ours("model.shared_projections.text", "affine"),
    lines.ours("model.shared_projections.image", "none"),
  ),
  rules=(
    two_towers.tables(
      f"{WORDS}.token_embedding.weight",
      f"{WORDS}.position_embedding.weight",
      f"{VISION}.patch_embedding.weight",
    ),
    rule("encoders_image/stem/patches/bias", f"{VISION}.patch_embedding.bias"),
    rule(POSITIONS, f"{VISION}.position_embedding.weight"),
    two_towers.layers("image", "vision_model", "post_layernorm"),
    two_towers.layers("text", "text_model", "final_layer_norm"),
    rule(f"{POOL}/query", f"{HEAD}.probe"),
    lines.merged(
      f"{POOL}/attention",
      f"{IN}_weight",
      f"{IN}_bias",
      Merged(0, Matrix()),
      Merged(0, Flat()),
    ),
    lines.linear(f"{POOL}/attention/out", f"{ATTENTION}.out_proj", num_in=2),
    lines.norm(f"{POOL}/norm", f"{HEAD}.layernorm"),
    lines.linear(f"{POOL}/mlp/hidden", f"{HEAD}.mlp.fc1"),
    lines.linear(f"{POOL}/mlp/out", f"{HEAD}.mlp.fc2"),
    lines.linear("shared_space/projections_text", "text_model.head"),
    rule("shared_space/log_scale", "logit_scale", Flat()),
    rule("shared_space/logit_bias", "logit_bias", Flat()),
  ),
  num_layers=two_towers.LAYERS,
  architectures={"": "SiglipModel"},
  recognizes=lambda s: s.config.get("model_type") in ("siglip", "siglip2"),
  complete=_complete,
  files=pixels.file("SiglipImageProcessor", PICTURES),
)
