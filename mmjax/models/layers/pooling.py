"""From a sequence to one vector per example."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models.layers.attention import Attention
from mmjax.models.layers.mlp import Mlp
from mmjax.models.layers.norm import layer_norm
from mmjax.models.layers.projection import Projection

KINDS = ("cls", "first", "mean", "map", "last", "cls_mean")
WITH_CLS = ("cls", "cls_mean")  # Those of a token that the encoder adds.


class Pool(nn.Module):
  """Pools a sequence: one token, the mean, or learned attention.

  "cls" is the learned token that the encoder puts first, "first" the first of
  the content (BERT's [CLS], which its texts bring); "last" the last that
  counts, which in a causal encoder has seen all others (Radford et al. 2021,
  2.4). "cls_mean" is "cls" and "mean" side by side (Oquab et al. 2024,
  arXiv:2304.07193, B.3).

  "map" is multi-head attention pooling with one learned query, followed by a
  residual feed-forward block (Lee et al. 2019, arXiv:1810.00825; Zhai et al.
  2022, arXiv:2106.04560). With `tanh`, a projection and tanh come after any of
  them (Devlin et al. 2019, released code); with `norm_epsilon`, a LayerNorm
  before it (BEiT, Bao et al. 2022, released code).

  Raises:
    UserError: unknown kind.
  """

  kind: str
  num_heads: int = 1  # Of "map".
  mlp_dim: int = 0  # Of "map".
  precision: precision_lib.Precision = precision_lib.FLOAT32
  tanh: bool = False
  norm_epsilon: float = 0.0  # 0 = no norm.
  projection: int = 0  # Channels of one that comes after; 0 = none, but `tanh`.

  @nn.compact
  def __call__(self, sequence: Sequence) -> Float[Array, "b d"]:
    pooled = self._pooled(sequence)
    if self.norm_epsilon:
      pooled = layer_norm(self.precision, "norm_after", self.norm_epsilon)(
        pooled
      )
    if not self.tanh and not self.projection:
      return pooled
    projected = Projection(
      (self.projection or pooled.shape[-1],),
      (axes.EMBED, axes.MLP),
      precision=self.precision,
      name="projection",
    )(pooled)
    return jnp.tanh(projected) if self.tanh else projected

  def _pooled(self, sequence):
    if self.kind == "cls":
      return sequence.x[:, 0]
    if self.kind == "first":
      return sequence.content[:, 0]
    if self.kind == "last":
      index = jnp.arange(sequence.x.shape[1])[None]  # 1 n
      last = jnp.max(jnp.where(sequence.mask, index, 0), axis=1)  # b
      return jnp.take_along_axis(sequence.x, last[:, None, None], axis=1)[:, 0]
    if self.kind == "mean":
      return _mean(sequence)
    if self.kind == "cls_mean":
      return jnp.concatenate([sequence.x[:, 0], _mean(sequence)], axis=1)
    if self.kind == "map":
      return self._attention_pool(sequence)
    raise errors.unknown("pooling", self.kind, KINDS)

  def _attention_pool(self, sequence):
    b, _, d = sequence.x.shape
    query = self.param(
      "query",
      nn.with_logical_partitioning(
        nn.initializers.xavier_uniform(), (None, None, axes.EMBED)
      ),
      (1, 1, d),
      jnp.float32,
    )
    query = jnp.broadcast_to(query, (b, 1, d)).astype(sequence.x.dtype)
    x = Attention(self.num_heads, precision=self.precision, name="attention")(
      query, sequence.x, mask=sequence.mask[:, None, :]
    )
    y = layer_norm(self.precision, "norm")(x)
    y = Mlp(self.mlp_dim, precision=self.precision, name="mlp")(y, train=False)
    return (x + y)[:, 0]


def _mean(sequence):
  """Of the content that counts."""
  weights = sequence.content_mask[:, :, None].astype(jnp.float32)
  total = jnp.sum(sequence.content.astype(jnp.float32) * weights, axis=1)
  mean = total / jnp.maximum(jnp.sum(weights, axis=1), 1.0)
  return mean.astype(sequence.x.dtype)
