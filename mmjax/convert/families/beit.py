"""BEiT (Bao et al. 2022), whose positions are mostly relative."""

from mmjax.convert import lines, pixels
from mmjax.convert.families import vit
from mmjax.convert.families.vit import BLOCK, IMAGE, LAYER, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import Same, WithClass

STACK, LAYERS = f"{IMAGE}.stack", f"{OURS}/stack"
CLASS, PLACES = "{p}embeddings.cls_token", "{p}embeddings.position_embeddings"
PATCHES = "{p}embeddings.patch_embeddings.projection"
OWN_PLACES, MASK = f"{OURS}/stem/positions/table", f"{OURS}/stem/mask_token"
NORM, LABEL = f"{OURS}/pooling/norm_after", "heads_label/logits"
CODES, SHARED = "heads_vtp/logits", "use_shared_relative_position_bias"
TABLE = "relative_position_bias.relative_position_bias_table"
BIAS = f"attention.attention.{TABLE}"
# Where patches are pooled, or nothing is, the class token is one more token
# that only attention uses: a register.
REGISTER, CLS = "mean|codes", "!mean !codes"


def _switch(make, name, part, on=True, off=False):
  """A key, of theirs or ours, that says whether a part is there."""
  return make(name, on, when=part), make(name, off, when=f"!{part}")


def _class(token, when):
  """Where the class token goes, with its position if it has one."""
  both = rule([token, OWN_PLACES], [CLASS, PLACES], WithClass())
  return (f"places {when}", both), (f"!places {when}", rule(token, CLASS))


FAMILY = Family(
  name="beit",
  keys=(
    *lines.vit(IMAGE, pool="", hidden="", positions=""),
    *lines.transformer(IMAGE),
    *pixels.keys(IMAGE, image_size=224, patch_size=16),
    *_switch(lines.ours, f"{IMAGE}.hidden", "mask", "replace", "drop"),
    *_switch(lines.ours, f"{IMAGE}.positions", "places", "learned", "none"),
    *_switch(lines.ours, f"{STACK}.final_norm", "mean", False, True),
    *_switch(lines.ours, f"{IMAGE}.pool_norm", "mean"),
    lines.ours(f"{IMAGE}.pool", "mean", when=REGISTER),
    lines.ours(f"{IMAGE}.pool", "cls", when=CLS),
    lines.ours(f"{IMAGE}.registers", 1, when=REGISTER),
    lines.ours(f"{STACK}.relative_positions", "layer", when="layer"),
    lines.ours(f"{STACK}.relative_positions", "shared", when="shared !layer"),
    lines.ours(f"{STACK}.key_bias", False),
    lines.key(f"{STACK}.layer_scale", "layer_scale_init_value", default=0.1),
    lines.key(f"{STACK}.drop_path_rate", "drop_path_rate", default=0.1),
    lines.ours("objectives.features.head", "vtp", when="codes"),
    lines.key("objectives.features.outputs", "vocab_size", when="codes"),
    *_switch(lines.theirs, "use_mask_token", "mask"),
    *_switch(lines.theirs, "use_absolute_position_embeddings", "places"),
    *_switch(lines.theirs, "use_relative_position_bias", "layer"),
    lines.theirs(SHARED, True, when="shared !layer"),
    lines.theirs(SHARED, False, when="!shared|layer"),
    lines.theirs("use_mean_pooling", True, when=REGISTER),
    lines.theirs("use_mean_pooling", False, when=CLS),
    lines.theirs("num_channels", 3),
  ),
  rules=(
    *_class(f"{OURS}/registers", REGISTER),
    *_class(f"{OURS}/cls", CLS),
    lines.patches(f"{OURS}/stem/patches", PATCHES),
    ("mask", rule(MASK, "{p}embeddings.mask_token", Same(lead=2))),
    lines.block(BLOCK, LAYER, unbiased=("key",), **vit.NAMES),
    ("layer", rule(f"{BLOCK}/relative/table", f"{LAYER}.{BIAS}")),
    ("shared !layer", rule(f"{LAYERS}/relative/table", "{p}encoder." + TABLE)),
    Ignored(r"{p}.*\.relative_position_index", "which distances tokens have"),
    ("scale", rule(f"{BLOCK}/attention_scale", f"{LAYER}.lambda_1")),
    ("scale", rule(f"{BLOCK}/mlp_scale", f"{LAYER}.lambda_2")),
    ("mean", lines.norm(NORM, "{p}pooler.layernorm")),
    ("codes", lines.norm(f"{LAYERS}/norm", "layernorm")),
    (CLS, lines.norm(f"{LAYERS}/norm", "{p}layernorm")),
    ("label", lines.linear(LABEL, "classifier")),
    ("codes", lines.linear(CODES, "lm_head")),
  ),
  parts={
    "places": (PLACES, OWN_PLACES),
    "mask": ("{p}embeddings.mask_token", MASK),
    "mean": ("{p}pooler.layernorm.weight", f"{NORM}/scale"),
    "layer": (
      "{p}encoder.layer.0." + BIAS,
      f"{LAYERS}/layer_00/relative/table",
    ),
    "shared": ("{p}encoder." + TABLE, f"{LAYERS}/relative/table"),
    "scale": (
      "{p}encoder.layer.0.lambda_1",
      f"{LAYERS}/layer_00/attention_scale",
    ),
    "label": ("classifier.weight", f"{LABEL}/kernel"),
    "codes": ("lm_head.weight", f"{CODES}/kernel"),
  },
  num_layers="num_hidden_layers",
  heads=("label", "codes"),
  prefix="beit.",
  architectures={
    "": "BeitModel",
    "label": "BeitForImageClassification",
    "codes": "BeitForMaskedImageModeling",
  },
  complete=pixels.complete,
  files=pixels.file("BeitImageProcessor"),
)
