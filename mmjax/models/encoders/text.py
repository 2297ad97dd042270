"""Text: token and position embeddings."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.layers.projection import Embedding


class TextStem(nn.Module):
  """Embeds token ids and adds learned positions (Devlin et al. 2019)."""

  vocab_size: int
  max_tokens: int  # Rows of the position table.
  embed_dim: int
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    inputs: Int[Array, "b t"],
    *,
    mask: Bool[Array, "b t"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
  ) -> Sequence:
    del hidden  # Text hides tokens by replacing ids, in the batch.
    num_tokens = inputs.shape[1]
    if num_tokens > self.max_tokens:
      raise errors.UserError(
        f"text has {num_tokens} tokens, the model takes "
        f"max_tokens={self.max_tokens}."
      )
    x = Embedding(
      self.vocab_size, self.embed_dim, axes.VOCAB, axes.EMBED, name="tokens"
    )(inputs)
    positions = Embedding(
      self.max_tokens,
      self.embed_dim,
      axes.POSITION,
      axes.EMBED,
      name="positions",
    )
    x = x + positions(jnp.arange(num_tokens))[None]
    mask = jnp.ones(inputs.shape, bool) if mask is None else mask
    return Sequence(
      x.astype(self.precision.activations), mask, num_content=num_tokens
    )


def text(
  *,
  vocab_size: int,
  max_tokens: int,
  size: str | Mapping[str, Any] = "B",
  pool: str = "mean",
  dropout_rate: float = 0.0,
  drop_path_rate: float = 0.0,
  activation: str = "gelu_tanh",
  scan: bool = False,
  remat: str = "none",
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> Encoder:
  """A bidirectional text encoder.

  Args:
    vocab_size: rows of the token table.
    max_tokens: longest text, tokens.
    size: see `variants.resolve`.
    pool: "cls" (a learned token in front), "mean" or "map".
    dropout_rate: of the residual branches.
    drop_path_rate: stochastic depth of the last block.
    activation: see `layers.mlp`.
    scan: stack the layers' parameters, see `layers.transformer.Stack`.
    remat: what is computed again in the backward pass, likewise.
    precision: see `core.precision`.
  """
  size = variants.resolve(size)
  stem = TextStem(vocab_size, max_tokens, size.embed_dim, precision)
  return Encoder(
    stem,
    size,
    pool,
    activation,
    dropout_rate,
    drop_path_rate,
    scan,
    remat,
    precision,
  )
