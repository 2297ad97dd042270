"""Predicts dropped tokens from the visible ones, and nothing else."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence, complement
from mmjax.models import variants
from mmjax.models.layers.hidden import mask_token
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import from_sincos
from mmjax.models.layers.projection import Embedding
from mmjax.models.layers.transformer import Stack

# Half as wide as ViT-B, two blocks.
LIGHT = dict(embed_dim=384, num_layers=2, num_heads=6, mlp_dim=1536)


class Predictor(nn.Module):
  """Lets dropped tokens attend to visible ones, not to each other.

  Each starts as a learned token plus its position's embedding; blocks of
  cross-attention and feed-forward run on these alone, so the work is that of
  what is predicted. Source: CrossMAE (Fu et al. 2024, arXiv:2401.14391), 3.2,
  of which all blocks read the encoder's last features here.

  The result has zeros, which don't count, where tokens were visible.

  Raises:
    UserError: no token was dropped.
  """

  size: variants.Size
  grid: tuple[int, ...] = ()  # Of the content tokens; see `Restore`.
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, sequence: Sequence, *, train: bool) -> Sequence:
    visible = sequence.positions  # b m
    if visible is None:
      raise errors.UserError(
        "The decoder 'predictor' predicts what an encoder drops, and nothing "
        "was: set the encoder's hidden='drop', or use the decoder 'patches'."
      )
    n, d = sequence.num_content, self.size.embed_dim
    start = nn.initializers.normal(0.02)
    if self.grid:
      start = from_sincos(self.grid)
    table = Embedding(n, d, axes.POSITION, axes.EMBED, start, name="positions")
    hidden = complement(visible, n)  # b k
    x = mask_token(self, d)[None, None] + table(hidden)  # b k d
    seen = sequence.mask[:, None, :]  # b 1 m
    stack = Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      self_attention=False,
      precision=self.precision,
      name="stack",
    )
    x = stack(x, mask=seen, train=train, context=sequence.x, context_mask=seen)
    counts = jnp.any(sequence.content_mask, axis=1, keepdims=True)  # b 1
    counts = jnp.broadcast_to(counts, hidden.shape)
    # tokens[order[i]] has position i: the inverse of the concatenation.
    order = jnp.argsort(jnp.concatenate([visible, hidden], axis=1), axis=1)
    return Sequence(
      _in_order(x, visible.shape[1], order),
      jnp.take_along_axis(
        jnp.pad(counts, ((0, 0), (visible.shape[1], 0))), order, axis=1
      ),
      num_content=n,
    )


def _in_order(x, num_visible, order):
  """Puts zeros where tokens were visible."""
  x = jnp.pad(x, ((0, 0), (num_visible, 0), (0, 0)))  # b n d
  return jnp.take_along_axis(x, order[:, :, None], axis=1)


def predictor(
  *,
  size: str | Mapping[str, Any] = "",
  grid: tuple[int, ...] | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Predictor:
  """A predictor of dropped patches, tubelets or pieces of a spectrogram.

  Args:
    size: see `variants.resolve`; "" = `LIGHT`.
    grid: of the tokens, as the data's mask counts them.
    stack: see `StackOptions`.
    precision: see `core.precision`.
  """
  return Predictor(
    variants.resolve(size or LIGHT),
    tuple(grid or ()),
    stack_options(stack),
    precision,
  )
