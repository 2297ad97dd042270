"""Text: token, position and segment embeddings."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.layers.norm import layer_norm
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import grid_coordinates, position_table
from mmjax.models.layers.projection import Embedding


class TextStem(nn.Module):
  """Embeds token ids and adds positions (Devlin et al. 2019, 3)."""

  vocab_size: int
  max_tokens: int  # Rows of the position table.
  embed_dim: int
  positions: str = "learned"  # See `layers.positions.KINDS`.
  # Rows of a table for the segment of each token (BERT's sentence A or B).
  num_segments: int = 0
  # A norm and dropout after the sum, as in BERT; epsilon 0 = none.
  norm_epsilon: float = 0.0
  dropout_rate: float = 0.0  # Of the sum.
  # Padding counts as any token; all texts then have `max_tokens` of them.
  attend_padding: bool = False
  precision: precision_lib.Precision = precision_lib.FLOAT32

  def setup(self):
    self.tokens = Embedding(
      self.vocab_size, self.embed_dim, axes.VOCAB, axes.EMBED
    )

  @nn.compact
  def __call__(
    self,
    inputs: Int[Array, "b t"],
    *,
    mask: Bool[Array, "b t"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    segments: Int[Array, "b t"] | None = None,
    coordinates: Int[Array, "b t 1"] | None = None,
    train: bool = False,
  ) -> Sequence:
    """Embeds; without `segments` all tokens are of segment 0.

    `coordinates` say where in its text each token is, if several share a row.
    """
    del hidden  # Text hides tokens by replacing ids, in the batch.
    num_tokens = inputs.shape[1]
    if num_tokens > self.max_tokens:
      raise errors.UserError(
        f"text has {num_tokens} tokens, the model takes "
        f"max_tokens={self.max_tokens}."
      )
    if self.attend_padding and num_tokens != self.max_tokens:
      raise errors.UserError(
        f"text has {num_tokens} tokens; with attend_padding, which counts "
        f"padding as tokens, it has to have max_tokens={self.max_tokens}. Set "
        "data.text.max_tokens to that, and leave data.buckets out."
      )
    if segments is not None and not self.num_segments:
      raise errors.UserError(
        "The batch says of which segment each token is; set num_segments of "
        "the text encoder."
      )
    x = self.tokens(inputs)
    table = position_table(
      self.positions,
      (self.max_tokens,),
      self.embed_dim,
      nn.initializers.normal(0.02),
    )
    if table is not None and coordinates is not None:
      x = x + jnp.take(table, coordinates[:, :, 0], axis=0)
    elif table is not None:
      # A slice where it will do: the gradient of a lookup is a scatter.
      x = x + table[None, :num_tokens]
    if self.num_segments:
      segments = jnp.zeros_like(inputs) if segments is None else segments
      x = x + Embedding(
        self.num_segments,
        self.embed_dim,
        axes.POSITION,
        axes.EMBED,
        name="segments",
      )(segments)
    if self.norm_epsilon:
      x = layer_norm(self.precision, "norm", self.norm_epsilon)(x)
    x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
    if mask is None or self.attend_padding:
      mask = jnp.ones(inputs.shape, bool)
    if coordinates is None:
      coordinates = jnp.asarray(grid_coordinates((num_tokens,)))[None]
    return Sequence(
      x.astype(self.precision.activations),
      mask,
      coordinates=coordinates.astype(jnp.float32),
      num_content=num_tokens,
    )

  def table(self) -> Float[Array, "v d"]:
    """The token embeddings, for an output that shares them."""
    return self.tokens.rows()


def text(
  *,
  vocab_size: int,
  max_tokens: int,
  size: str | Mapping[str, Any] = "B",
  positions: str = "learned",
  num_segments: int = 0,
  embedding_norm_epsilon: float = 0.0,
  embedding_dropout_rate: float = 0.0,
  causal: bool = False,
  pool: str = "mean",
  pool_tanh: bool = False,
  attend_padding: bool = False,
  fuse_before_norm: bool = False,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A text encoder: bidirectional (BERT), or causal (GPT, CLIP).

  Args:
    vocab_size: rows of the token table.
    max_tokens: longest text, tokens.
    size: see `variants.resolve`.
    positions: "learned", "sincos", "rotary" or "none".
    num_segments: rows of the segment table; 0 = none.
    embedding_norm_epsilon: of the norm after the embeddings; 0 = no norm.
    embedding_dropout_rate: after the embeddings.
    causal: a token sees itself and those before it. Pool "last" then.
    pool: "cls" (a learned token in front), "first" (the text's own first, as
      in BERT), "mean", "map", or "last".
    pool_tanh: a projection and tanh come after, as in BERT.
    attend_padding: padding counts as tokens do, so texts have all `max_tokens`
      of them and pool "last" takes the very last, as in SigLIP.
    fuse_before_norm: fusions take what there is before the stack's last norm,
      as in FLAVA.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: a causal encoder that pools its first token, which sees nothing.
  """
  if causal and pool in ("cls", "first"):
    raise errors.UserError(
      f"A causal text encoder cannot pool by {pool!r}: its first token sees no "
      "other. Use pool='last' or 'mean'."
    )
  size = variants.resolve(size)
  stem = TextStem(
    vocab_size,
    max_tokens,
    size.embed_dim,
    positions,
    num_segments,
    embedding_norm_epsilon,
    embedding_dropout_rate,
    attend_padding,
    precision,
  )
  return Encoder(
    stem,
    size,
    pool,
    causal=causal,
    rotary=positions == "rotary",
    options=stack_options(stack),
    precision=precision,
    pool_tanh=pool_tanh,
    fuse_before_norm=fuse_before_norm,
  )
