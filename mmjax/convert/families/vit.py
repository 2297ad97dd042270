"""ViT (Dosovitskiy et al. 2021) as transformers has it."""

from mmjax.convert import lines
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import WithClass

IMAGE, OURS = "model.encoders.image", "encoders_image"
BLOCK, LAYER = f"{OURS}/stack/layer_{{i:02d}}", "{p}encoder.layer.{i}"
# Of a layer, but for its key, that BEiT has too; and MAE.
NAMES = dict(
  attention_norm="layernorm_before",
  query="attention.attention.query",
  value="attention.attention.value",
  out="attention.output.dense",
  mlp_norm="layernorm_after",
  hidden="intermediate.dense",
  mlp_out="output.dense",
)
KEY = "attention.attention.key"
PATCHES = lines.patches(
  f"{OURS}/stem/patches", "{p}embeddings.patch_embeddings.projection"
)
CLASS = rule(
  [f"{OURS}/cls", f"{OURS}/stem/positions/table"],
  ["{p}embeddings.cls_token", "{p}embeddings.position_embeddings"],
  WithClass(),
)

FAMILY = Family(
  name="vit",
  keys=(
    *lines.vit(IMAGE),
    *lines.size(IMAGE),
    *lines.pixels(IMAGE, image_size=224, patch_size=16),
    lines.activation(f"{IMAGE}.stack.activation", "hidden_act", "gelu"),
    lines.key(f"{IMAGE}.stack.norm_epsilon", "layer_norm_eps", default=1e-12),
    lines.key(
      f"{IMAGE}.stack.dropout_rate", "hidden_dropout_prob", default=0.0
    ),
    lines.theirs("num_channels", 3),
    lines.theirs("qkv_bias", True),
    lines.theirs("pooler_act", "tanh"),
    lines.theirs("attention_probs_dropout_prob", 0.0, checked=False),
  ),
  rules=(
    CLASS,
    PATCHES,
    Ignored(r"{p}embeddings\.mask_token", "hides patches while pretraining"),
    lines.block(BLOCK, LAYER, key=KEY, **NAMES),
    lines.norm(f"{OURS}/stack/norm", "{p}layernorm"),
    ("pooler", lines.linear(f"{OURS}/pooling/projection", "{p}pooler.dense")),
    ("label", lines.linear("heads_label/logits", "classifier")),
  ),
  parts={
    "pooler": ("{p}pooler.dense.weight", f"{OURS}/pooling/projection/kernel"),
    "label": ("classifier.weight", "heads_label/logits/kernel"),
  },
  num_layers="num_hidden_layers",
  heads=("label",),
  prefix="vit.",
  architectures={"": "ViTModel", "label": "ViTForImageClassification"},
  complete=lines.complete_pixels,
  files=lines.pixel_file("ViTImageProcessor"),
)
