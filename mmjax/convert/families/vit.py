"""ViT (Dosovitskiy et al. 2021) as transformers has it."""

from mmjax.convert import lines, pixels
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored

IMAGE, OURS = "model.encoders.image", "encoders_image"
BLOCK, LAYER = f"{OURS}/stack/layer_{{i:02d}}", "{p}encoder.layer.{i}"
# Of a layer, as its relatives have it too.
NAMES = dict(
  attention_norm="layernorm_before",
  query="attention.attention.query",
  key="attention.attention.key",
  value="attention.attention.value",
  out="attention.output.dense",
  mlp_norm="layernorm_after",
  hidden="intermediate.dense",
  mlp_out="output.dense",
)

FAMILY = Family(
  name="vit",
  keys=(
    *lines.vit(IMAGE),
    *lines.transformer(IMAGE),
    *pixels.keys(IMAGE, image_size=224, patch_size=16),
    lines.theirs("num_channels", 3),
    lines.theirs("qkv_bias", True),
    lines.theirs("pooler_act", "tanh"),
  ),
  rules=(
    lines.image_tables(OURS, "{p}embeddings"),
    Ignored(r"{p}embeddings\.mask_token", "hides patches while pretraining"),
    lines.block(BLOCK, LAYER, **NAMES),
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
  complete=pixels.complete,
  files=pixels.file("ViTImageProcessor"),
)
