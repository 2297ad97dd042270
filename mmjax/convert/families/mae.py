"""MAE (He et al. 2022): a ViT without its hidden patches, and its decoder."""

import dataclasses
import functools

from mmjax.convert import lines, pixels
from mmjax.convert.families import vit
from mmjax.convert.families.vit import BLOCK, IMAGE, LAYER, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Same, WithoutClass

DECODER, PIXELS = "model.decoders.image", "objectives.mae"
DECODES, LOGITS = "decoders_image", "heads_pixels/logits"
MEAN = dict(into=tuple, back=list)


def _learns(*keys):
  """With the decoder, so with what it learns."""
  return (dataclasses.replace(key, when="decoder") for key in keys)


FAMILY = Family(
  name="vit_mae",
  keys=(
    *lines.vit(IMAGE),
    *lines.transformer(IMAGE),
    *pixels.keys(IMAGE, image_size=224, patch_size=16),
    *_learns(
      lines.ours(f"{DECODER}.name", "patches"),
      lines.ours(f"{DECODER}.everywhere", True),
      *lines.transformer(
        DECODER,
        embed_dim="decoder_hidden_size",
        num_layers="decoder_num_hidden_layers",
        num_heads="decoder_num_attention_heads",
        mlp_dim="decoder_intermediate_size",
      ),
      *lines.stack(f"{DECODER}.stack", "pre"),
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
  ),
  rules=(
    lines.image_tables(OURS, "{p}embeddings"),
    lines.block(BLOCK, LAYER, **vit.NAMES),
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
  complete=functools.partial(pixels.complete, **pixels.IMAGENET),
  files=pixels.file("ViTImageProcessor"),
)
