"""Configs of weights that come without one: sizes by the shapes of tensors."""

from typing import Any

from mmjax.convert.beside import pixels
from mmjax.convert.family import Source
from mmjax.core import errors

HEAD_DIM = 64  # Of timm, whose config doesn't say how many heads there are.
# big_vision's, below the prefix; a layer's queries.
QUERY = "encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"


def complete_timm(source: Source, has: set[str]) -> dict[str, Any]:
  """Of timm's ViT: the sizes, and the rest of `pretrained_cfg`.

  Raises:
    UserError: it pools in a way that models here don't.
  """
  pool = source.config.get("global_pool", "token")
  if pool not in ("token", ""):
    raise errors.UserError(
      f"global_pool={pool!r}: of timm's ViTs only those that pool the class "
      "token ('token') are known here."
    )
  mlp_dim, width = shape(source, "blocks.0.mlp.fc1.weight")
  side = shape(source, "patch_embed.proj.weight")[-1]
  said = source.config.get("pretrained_cfg", {})
  return dict(
    hidden_size=width,
    intermediate_size=mlp_dim,
    num_hidden_layers=_count(source, "blocks.", "."),
    num_attention_heads=source.config.get("num_heads", width // HEAD_DIM),
    patch_size=side,
    image_size=_image_size(shape(source, "pos_embed"), side),
    image_mean=said.get("mean", pixels.HALF),
    image_std=said.get("std", pixels.HALF),
  )


def complete_big_vision(source: Source, has: set[str]) -> dict[str, Any]:
  """Of big_vision's ViT: all."""
  width, heads, _ = shape(source, QUERY)
  side = shape(source, "embedding/kernel")[0]
  return dict(
    hidden_size=width,
    num_attention_heads=heads,
    intermediate_size=shape(source, "encoderblock_0/MlpBlock_3/Dense_0/bias")[
      0
    ],
    num_hidden_layers=_count(source, "encoderblock_", "/"),
    patch_size=side,
    image_size=_image_size(shape(source, "posembed_input/pos_embedding"), side),
    image_mean=pixels.HALF,
    image_std=pixels.HALF,
  )


def shape(source: Source, name: str) -> tuple[int, ...]:
  """Of the tensor whose name ends so; () if there is none."""
  found = (s.shape for n, s in source.specs.items() if n.endswith(name))
  return next(found, ())


def _count(source, before, after):
  """How many layers there are."""
  names = [n.partition(before)[2] for n in source.specs]
  return len({n.partition(after)[0] for n in names if n})


def _image_size(table, side):
  """Of a square picture, by its positions; the first is the class token's."""
  return side * round((table[1] - 1) ** 0.5)
