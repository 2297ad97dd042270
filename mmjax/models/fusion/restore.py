"""Puts dropped tokens back into a sequence."""

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes
from mmjax.core.sequence import Sequence, complement
from mmjax.models.layers.hidden import mask_token
from mmjax.models.layers.positions import from_sincos
from mmjax.models.layers.projection import Embedding


class Restore(nn.Module):
  """Fills the positions that an encoder left out with a learned token.

  The learned token plus the position's embedding stand where a token was
  dropped; the kept tokens return to their own positions. Source: He et al.
  2022 (arXiv:2111.06377), 3, "MAE decoder". Positions are learned; with a
  `grid` they start from its sines and cosines.

  Kept tokens know from the encoder where they are; with `everywhere` they too
  get the embedding of their position, as in that paper's code.
  """

  grid: tuple[int, ...] = ()  # Of the content tokens.
  everywhere: bool = False

  @nn.compact
  def __call__(self, sequence: Sequence) -> Sequence:
    assert sequence.positions is not None
    b, _, d = sequence.x.shape
    n = sequence.num_content
    visible = sequence.positions  # b m
    token = mask_token(self, d)
    start = dict(table_init=from_sincos(self.grid)) if self.grid else {}
    table = Embedding(
      n, d, axes.POSITION, axes.EMBED, **start, name="positions"
    )
    hidden = complement(visible, n)  # b n-m
    filler = (token[None, None] + table(hidden)).astype(sequence.x.dtype)
    kept = sequence.content
    if self.everywhere:
      kept = kept + table(visible).astype(kept.dtype)
    tokens = jnp.concatenate([kept, filler], axis=1)  # b n d
    # tokens[order[i]] has position i: the inverse of the concatenation.
    order = jnp.argsort(jnp.concatenate([visible, hidden], axis=1), axis=1)
    content = jnp.take_along_axis(tokens, order[:, :, None], axis=1)
    # In an example that lacks the modality, what is filled in is absent too.
    counts = jnp.any(sequence.content_mask, axis=1, keepdims=True)  # b 1
    known = jnp.concatenate(
      [sequence.content_mask, jnp.broadcast_to(counts, hidden.shape)], axis=1
    )
    mask = jnp.take_along_axis(known, order, axis=1)
    prefix = sequence.num_prefix
    return sequence.replace(
      x=jnp.concatenate([sequence.x[:, :prefix], content], axis=1),
      mask=jnp.concatenate([sequence.mask[:, :prefix], mask], axis=1),
      positions=None,
      coordinates=None,
    )
