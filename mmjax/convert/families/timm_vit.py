"""ViT as timm has it: one kernel for queries, keys and values."""

from mmjax.convert import lines, pixels
from mmjax.convert.families.vit import BLOCK, IMAGE, OURS
from mmjax.convert.family import Family
from mmjax.convert.mapping import rule
from mmjax.convert.transforms import Flat, Matrix, Merged, Patches, WithClass
from mmjax.core import errors

LAYER, HEAD_DIM = "blocks.{i}", 64  # timm's config doesn't say its heads.
FIRST = "blocks.0.mlp.fc1.weight"


def _complete(source, has):
  """The sizes stand in the shapes, the rest in `pretrained_cfg`."""
  said = source.config.get("pretrained_cfg", {})
  if source.config.get("global_pool", "token") not in ("token", ""):
    raise errors.UserError(
      f"global_pool={source.config['global_pool']!r}: of timm's ViTs only "
      "those that pool the class token ('token') are known here."
    )
  mlp_dim, width = source.specs[FIRST].shape
  blocks = {n.split(".")[1] for n in source.specs if n.startswith("blocks.")}
  side = source.specs["patch_embed.proj.weight"].shape[-1]
  cells = source.specs["pos_embed"].shape[1] - 1
  return dict(
    hidden_size=width,
    intermediate_size=mlp_dim,
    num_hidden_layers=len(blocks),
    num_attention_heads=source.config.get("num_heads", width // HEAD_DIM),
    patch_size=side,
    image_size=side * round(cells**0.5),
    image_mean=said.get("mean", pixels.HALF),
    image_std=said.get("std", pixels.HALF),
  )


FAMILY = Family(
  name="timm_vit",
  keys=(
    *lines.vit(IMAGE),
    *lines.size(IMAGE),
    *pixels.keys(IMAGE),
    lines.ours(f"{IMAGE}.stack.activation", "gelu"),
    lines.ours(f"{IMAGE}.stack.norm_epsilon", 1e-6),
  ),
  rules=(
    rule(
      [f"{OURS}/cls", f"{OURS}/stem/positions/table"],
      ["cls_token", "pos_embed"],
      WithClass(),
    ),
    rule(f"{OURS}/stem/patches/kernel", "patch_embed.proj.weight", Patches()),
    rule(f"{OURS}/stem/patches/bias", "patch_embed.proj.bias"),
    lines.merged(
      f"{BLOCK}/attention",
      f"{LAYER}.attn.qkv.weight",
      f"{LAYER}.attn.qkv.bias",
      Merged(0, Matrix()),
      Merged(0, Flat()),
    ),
    lines.block(
      BLOCK,
      LAYER,
      attention_norm="norm1",
      out="attn.proj",
      mlp_norm="norm2",
      hidden="mlp.fc1",
      mlp_out="mlp.fc2",
    ),
    lines.norm(f"{OURS}/stack/norm", "norm"),
    ("label", lines.linear("heads_label/logits", "head")),
  ),
  parts={"label": ("head.weight", "heads_label/logits/kernel")},
  num_layers="num_hidden_layers",
  recognizes=lambda source: (
    FIRST in source.specs and "cls_token" in source.specs
  ),
  complete=_complete,
  writes=False,
)
