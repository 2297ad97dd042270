"""MAE (He et al. 2022): a ViT without its hidden patches, and its decoder."""

import dataclasses
import functools

from mmjax.convert import lines
from mmjax.convert.families import vit
from mmjax.convert.families.vit import BLOCK, IMAGE, LAYER, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Same, WithoutClass

DECODER, PIXELS = "model.decoders.image", "objectives.mae"
DECODES, LOGITS = "decoders_image", "heads_pixels/logits"
EPSILON = dict(default=1e-12)
MEAN = dict(into=tuple, back=list)


def _learns(*keys):
  """With the decoder, so with what it learns."""
  return (dataclasses.replace(key, when="decoder") for key in keys)


FAMILY = Family(
  name="vit_mae",
  keys=(
    *lines.vit(IMAGE),
    *lines.size(IMAGE),
    *lines.pixels(IMAGE, image_size=224, patch_size=16),
    lines.activation(f"{IMAGE}.stack.activation", "hidden_act", "gelu"),
    lines.key(f"{IMAGE}.stack.norm_epsilon", "layer_norm_eps", **EPSILON),
    lines.dropout(f"{IMAGE}.stack.dropout_rate", 0.0),
    *_learns(
      lines.ours(f"{DECODER}.name", "patches"),
      lines.ours(f"{DECODER}.everywhere", True),
      *lines.size(
        DECODER,
        embed_dim="decoder_hidden_size",
        num_layers="decoder_num_hidden_layers",
        num_heads="decoder_num_attention_heads",
        mlp_dim="decoder_intermediate_size",
      ),
      *lines.stack(f"{DECODER}.stack", "pre"),
      lines.activation(f"{DECODER}.stack.activation", "hidden_act", "gelu"),
      lines.key(f"{DECODER}.stack.norm_epsilon", "layer_norm_eps", **EPSILON),
      lines.dropout(f"{DECODER}.stack.dropout_rate", 0.0),
      lines.ours(f"{PIXELS}.name", "masked_pixel_regression"),
      lines.ours(f"{PIXELS}.unbiased", True),
      lines.ours(f"{PIXELS}.epsilon", 1e-6),
      lines.key(f"{PIXELS}.normalize", "norm_pix_loss", default=False),
      lines.key(f"{PIXELS}.pixel_mean", "image_mean", **MEAN),
      lines.key(f"{PIXELS}.pixel_std", "image_std", **MEAN),
      lines.key("data.image.mask.rate", "mask_ratio", default=0.75),
      lines.key("data.image.mask.patch_size", "patch_size"),
    ),
    lines.theirs("num_channels", 3),
    lines.theirs("qkv_bias", True),
    lines.theirs("attention_probs_dropout_prob", 0.0, checked=False),
  ),
  rules=(
    vit.CLASS,
    vit.PATCHES,
    lines.block(BLOCK, LAYER, key=vit.KEY, **vit.NAMES),
    lines.norm(f"{OURS}/stack/norm", "{p}layernorm"),
    ("decoder", lines.linear(f"{DECODES}/input", "decoder.decoder_embed")),
    (
      "decoder",
      rule(f"{DECODES}/restore/mask_token", "decoder.mask_token", Same(lead=2)),
    ),
    (
      "decoder",
      rule(
        f"{DECODES}/restore/positions/table",
        "decoder.decoder_pos_embed",
        WithoutClass(),
      ),
    ),
    (
      "decoder",
      lines.block(
        f"{DECODES}/stack/layer_{{i:02d}}",
        "decoder.decoder_encoder.layer.{i}",
        key=vit.KEY,
        **vit.NAMES,
      ),
    ),
    ("decoder", lines.norm(f"{DECODES}/stack/norm", "decoder.decoder_norm")),
    ("decoder", lines.linear(LOGITS, "decoder.decoder_pred")),
  ),
  parts={"decoder": ("decoder.decoder_embed.weight", f"{LOGITS}/kernel")},
  num_layers={
    OURS: "num_hidden_layers",
    DECODES: "decoder_num_hidden_layers",
  },
  heads=("decoder",),
  prefix="vit.",
  architectures={"": "ViTMAEModel", "decoder": "ViTMAEForPreTraining"},
  complete=functools.partial(lines.complete_pixels, **lines.IMAGENET),
  files=lines.pixel_file("ViTImageProcessor"),
)
