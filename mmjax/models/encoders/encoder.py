"""The one encoder: a stem that makes tokens, then a stack that mixes them."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.layers.pooling import KINDS, Pool
from mmjax.models.layers.transformer import Stack


class Encoder(nn.Module):
  """Encodes one modality: field -> `Sequence`.

  Modalities differ in the stem only, a Linen module called as
  `stem(inputs, mask=, hidden=) -> Sequence`.

  Raises:
    UserError: unknown kind of pooling.
  """

  stem: nn.Module
  size: variants.Size
  pool_kind: str = "mean"
  activation: str = "gelu_tanh"
  dropout_rate: float = 0.0
  drop_path_rate: float = 0.0
  scan: bool = False
  remat: str = "none"
  precision: precision_lib.Precision = precision_lib.FLOAT32

  def setup(self):
    if self.pool_kind not in KINDS:
      raise errors.unknown("pooling", self.pool_kind, KINDS)
    size = self.size
    self.stack = Stack(
      size.num_layers,
      size.num_heads,
      size.mlp_dim,
      self.activation,
      self.dropout_rate,
      self.drop_path_rate,
      self.scan,
      self.remat,
      self.precision,
    )
    self.pooling = Pool(
      self.pool_kind, size.num_heads, size.mlp_dim, self.precision
    )
    if self.pool_kind == "cls":
      self.cls = self.param(
        "cls",
        nn.with_logical_partitioning(
          nn.initializers.normal(0.02), (None, None, axes.EMBED)
        ),
        (1, 1, size.embed_dim),
        jnp.float32,
      )

  def __call__(
    self,
    inputs: Array,
    *,
    mask: Bool[Array, "b n"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    train: bool,
  ) -> Sequence:
    """Encodes a field of the batch.

    Args:
      inputs: the field, as its stem documents.
      mask: True where `inputs` is real; None = everywhere.
      hidden: positions of the content tokens to hide from the encoder.
      train: dropout and stochastic depth are on.
    """
    sequence = self.stem(inputs, mask=mask, hidden=hidden)
    if self.pool_kind == "cls":
      sequence = _prepend(self.cls, sequence)
    x = self.stack(sequence.x, mask=sequence.mask[:, None, :], train=train)
    return sequence.replace(x=x)

  def pool(self, sequence: Sequence) -> Float[Array, "b d"]:
    """One vector per example."""
    return self.pooling(sequence)


def _prepend(token, sequence):
  b, _, d = sequence.x.shape
  token = jnp.broadcast_to(token.astype(sequence.x.dtype), (b, 1, d))
  return sequence.replace(
    x=jnp.concatenate([token, sequence.x], axis=1),
    mask=jnp.concatenate([jnp.ones((b, 1), bool), sequence.mask], axis=1),
    num_prefix=sequence.num_prefix + 1,
  )
