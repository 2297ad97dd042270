"""DINOv2 (Oquab et al. 2024), also with registers (Darcet et al. 2024)."""

import functools

from mmjax.convert import lines, pixels
from mmjax.convert.families import vit
from mmjax.convert.families.vit import BLOCK, IMAGE, LAYER, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Flat, Matrix, Merged, Same
from mmjax.core import errors

STACK, REGISTERS = f"{IMAGE}.stack", f"{OURS}/registers"
MASK, LOGITS = f"{OURS}/stem/mask_token", "heads_label/logits"
GATED = ("encoder.layer.0.mlp.weights_in.weight", "layer_00/mlp/gate/kernel")
NAMES = {
  **{name: vit.NAMES[name] for name in ("query", "key", "value", "out")},
  **dict(attention_norm="norm1", mlp_norm="norm2"),
}


def _mlp_dim(config, ratio=0):
  """Of `mlp_ratio` times the width; where it is gated, two thirds of that."""
  size = int(config["hidden_size"] * (ratio or config.get("mlp_ratio") or 4))
  gated = config.get("use_swiglu_ffn")
  return (int(size * 2 / 3) + 7) // 8 * 8 if gated else size


def _derive(config):
  """The ratio of a width."""
  size = config["intermediate_size"]
  for ratio in (config.get("mlp_ratio", 4), *range(1, 17)):
    if _mlp_dim(config, ratio) == size:
      return {**config, "mlp_ratio": ratio}
  raise errors.UserError(f"mlp_dim={size} is of no whole mlp_ratio up to 16.")


def _gated(ours, theirs, how):
  """One map makes gates, then what they multiply."""
  names = [f"{BLOCK}/mlp/{name}/{ours}" for name in ("gate", "hidden")]
  return rule(names, f"{LAYER}.mlp.weights_in.{theirs}", Merged(0, how))


def _family(name, title, patch_size, more_keys=(), more_rules=()):
  return Family(
    name=name,
    keys=(
      *lines.vit(IMAGE, pool="", hidden=""),
      lines.ours(f"{IMAGE}.pool", "cls", when="!label"),
      lines.ours(f"{IMAGE}.pool", "cls_mean", when="label"),
      lines.ours(f"{IMAGE}.hidden", "replace", when="mask"),
      lines.ours(f"{IMAGE}.hidden", "drop", when="!mask"),
      *lines.size(IMAGE)[:3],
      lines.key(f"{IMAGE}.size.mlp_dim", "intermediate_size", default=_mlp_dim),
      *pixels.keys(IMAGE, image_size=224, patch_size=patch_size),
      lines.key(f"{STACK}.gated", "use_swiglu_ffn", default=False),
      lines.activation(f"{STACK}.activation", "hidden_act", "gelu", "!gated"),
      lines.ours(f"{STACK}.activation", "silu", when="gated"),
      lines.key(f"{STACK}.norm_epsilon", "layer_norm_eps", default=1e-6),
      lines.key(f"{STACK}.layer_scale", "layerscale_value", default=1.0),
      *more_keys,
      lines.theirs("num_channels", 3),
      lines.theirs("qkv_bias", True),
      lines.theirs("hidden_dropout_prob", 0.0, checked=False),
      lines.theirs("attention_probs_dropout_prob", 0.0, checked=False),
      lines.theirs("drop_path_rate", 0.0, checked=False),
    ),
    rules=(
      lines.image_tables(OURS, "{p}embeddings"),
      ("mask", rule(MASK, "{p}embeddings.mask_token", Same(lead=1))),
      *more_rules,
      lines.block(BLOCK, LAYER, **NAMES),
      rule(f"{BLOCK}/attention_scale", f"{LAYER}.layer_scale1.lambda1"),
      rule(f"{BLOCK}/mlp_scale", f"{LAYER}.layer_scale2.lambda1"),
      (
        "!gated",
        lines.block(BLOCK, LAYER, hidden="mlp.fc1", mlp_out="mlp.fc2"),
      ),
      ("gated", lines.block(BLOCK, LAYER, mlp_out="mlp.weights_out")),
      ("gated", _gated("kernel", "weight", Matrix())),
      ("gated", _gated("bias", "bias", Flat())),
      lines.norm(f"{OURS}/stack/norm", "{p}layernorm"),
      ("label", lines.linear(LOGITS, "classifier")),
    ),
    parts={
      "mask": ("{p}embeddings.mask_token", MASK),
      "gated": ("{p}" + GATED[0], f"{OURS}/stack/{GATED[1]}"),
      "label": ("classifier.weight", f"{LOGITS}/kernel"),
    },
    num_layers="num_hidden_layers",
    heads=("label",),
    prefix=f"{name}.",
    architectures={
      "": f"{title}Model",
      "label": f"{title}ForImageClassification",
    },
    complete=functools.partial(pixels.complete, **pixels.IMAGENET),
    derive=_derive,
    files=pixels.file("ViTImageProcessor"),
  )


DINOV2 = _family(
  "dinov2",
  "Dinov2",
  14,
  (
    lines.ours(f"{IMAGE}.registers", 0),
    lines.theirs("use_mask_token", False, when="!mask", checked=False),
  ),
)
WITH_REGISTERS = _family(
  "dinov2_with_registers",
  "Dinov2WithRegisters",
  16,
  (lines.key(f"{IMAGE}.registers", "num_register_tokens", default=4),),
  (rule(REGISTERS, "{p}embeddings.register_tokens"),),
)
