"""ViT as big_vision and AugReg (Steiner et al. 2021) save it, npz of Flax."""

from mmjax.convert import lines, pixels
from mmjax.convert.families.vit import BLOCK, IMAGE, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import Patches, WithClass

LAYER = "{p}Transformer/encoderblock_{i}"
ATTENTION, MLP = "MultiHeadDotProductAttention_1", "MlpBlock_3"
TANH, LOGITS = f"{OURS}/pooling/projection", "heads_label/logits"


def _shape(source, name):
  names = [n for n in source.specs if n.endswith(name)]
  return source.specs[names[0]].shape if names else ()


def _complete(source, has):
  """All sizes stand in the shapes."""
  block = "Transformer/encoderblock_0"
  width, heads, _ = _shape(source, f"{block}/{ATTENTION}/query/kernel")
  side = _shape(source, "embedding/kernel")[0]
  cells = _shape(source, "Transformer/posembed_input/pos_embedding")[1] - 1
  blocks = {
    n.split("encoderblock_")[1].split("/")[0]
    for n in source.specs
    if "encoderblock_" in n
  }
  return dict(
    hidden_size=width,
    num_attention_heads=heads,
    intermediate_size=_shape(source, f"{block}/{MLP}/Dense_0/kernel")[1],
    num_hidden_layers=len(blocks),
    patch_size=side,
    image_size=side * round(cells**0.5),
    image_mean=pixels.HALF,
    image_std=pixels.HALF,
  )


def _flax(ours, theirs):
  """A projection, whose axes are ours."""
  return [rule(f"{ours}/{x}", f"{theirs}/{x}") for x in ("kernel", "bias")]


def _norm(ours, theirs):
  return [rule(f"{ours}/{x}", f"{theirs}/{x}") for x in ("scale", "bias")]


FAMILY = Family(
  name="big_vision_vit",
  keys=(
    *lines.vit(IMAGE),
    *lines.size(IMAGE),
    *pixels.keys(IMAGE),
    # As Flax had it by default: the approximation.
    lines.ours(f"{IMAGE}.stack.activation", "gelu_tanh"),
    lines.ours(f"{IMAGE}.stack.norm_epsilon", 1e-6),
  ),
  rules=(
    rule(
      [f"{OURS}/cls", f"{OURS}/stem/positions/table"],
      ["{p}cls", "{p}Transformer/posembed_input/pos_embedding"],
      WithClass(),
    ),
    rule(
      f"{OURS}/stem/patches/kernel", "{p}embedding/kernel", Patches(torch=False)
    ),
    rule(f"{OURS}/stem/patches/bias", "{p}embedding/bias"),
    _norm(f"{BLOCK}/attention_norm", f"{LAYER}/LayerNorm_0"),
    *(
      _flax(f"{BLOCK}/attention/{x}", f"{LAYER}/{ATTENTION}/{x}")
      for x in ("query", "key", "value", "out")
    ),
    _norm(f"{BLOCK}/mlp_norm", f"{LAYER}/LayerNorm_2"),
    _flax(f"{BLOCK}/mlp/hidden", f"{LAYER}/{MLP}/Dense_0"),
    _flax(f"{BLOCK}/mlp/out", f"{LAYER}/{MLP}/Dense_1"),
    _norm(f"{OURS}/stack/norm", "{p}Transformer/encoder_norm"),
    ("pooler", _flax(TANH, "{p}pre_logits")),
    ("label", _flax(LOGITS, "{p}head")),
    Ignored(r"(opt|chrono)/.*", "of its optimizer"),
  ),
  parts={
    "pooler": ("{p}pre_logits/kernel", f"{TANH}/kernel"),
    "label": ("{p}head/kernel", f"{LOGITS}/kernel"),
  },
  num_layers="num_hidden_layers",
  prefix="params/",
  heads=(),
  recognizes=lambda source: bool(
    _shape(source, f"Transformer/encoderblock_0/{ATTENTION}/query/kernel")
  ),
  complete=_complete,
  writes=False,
)
