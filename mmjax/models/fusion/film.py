"""Modulation: tokens multiplied, channel by channel, by what others say."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.fusion.stream import unrolled
from mmjax.models.layers import norm as norm_lib
from mmjax.models.layers.mlp import Mlp
from mmjax.models.layers.options import VIT, StackOptions
from mmjax.models.layers.placement import place
from mmjax.models.layers.projection import Projection


class FilmEncoder(nn.Module):
  """Scales and shifts each token by the mean of each other modality.

  Source: FiLM (Perez et al. 2018, arXiv:1709.07871), eq. 2, there of pictures
  by a question, here of any modality by all others. A layer makes
  h = (1 + gamma) norm(x) + beta, then h + mlp(norm(h)), with gamma and beta
  linear in the others' means after the layer before. So the product of two
  modalities is there from the first step, where attention has to learn it.
  Tokens don't see each other: their encoders have done that.
  """

  size: variants.Size
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    outputs = fusion_inputs(
      self, sequences, self.size.embed_dim, self.precision
    )
    for index in range(self.size.num_layers):
      means = {name: _mean(sequence) for name, sequence in outputs.items()}
      outputs = {
        name: sequence.replace(
          x=self._layer(index, name, sequence, means, train)
        )
        for name, sequence in outputs.items()
      }
    return {
      name: sequence.replace(x=self._norm(f"{name}_norm")(sequence.x))
      for name, sequence in outputs.items()
    }

  def _layer(self, index, name, sequence, means, train):
    """One layer of one modality; called within the compact method."""
    prefix = f"{name}_{index:02d}"
    x = self._norm(f"{prefix}_norm")(sequence.x)
    scales, shifts = jnp.ones_like(x[:, :1]), jnp.zeros_like(x[:, :1])
    for other, mean in means.items():
      if other != name:
        scale, shift = self._said(f"{prefix}_by_{other}", mean)
        scales, shifts = scales + scale, shifts + shift
    x = x * scales + shifts
    options = self.options
    y = Mlp(
      self.size.mlp_dim,
      options.activation,
      options.dropout_rate,
      options.gated,
      options.use_bias,
      axes.EXPERT_MLP,
      self.precision,
      name=f"{prefix}_mlp",
    )(self._norm(f"{prefix}_mlp_norm")(x), train=train)
    y = nn.Dropout(options.dropout_rate)(y, deterministic=not train)
    return place(x + y, (axes.ACT_BATCH, axes.ACT_SEQ, axes.ACT_EMBED))

  def _said(self, name, mean):
    """Gamma and beta of one other modality, `b 1 d` each."""
    # Without bias: what an example lacks has mean 0, and says nothing.
    said = Projection(
      (2 * self.size.embed_dim,),
      (axes.EMBED, axes.MLP),
      use_bias=False,
      precision=self.precision,
      name=name,
    )(mean)
    return jnp.split(said[:, None], 2, axis=-1)

  def _norm(self, name):
    options = self.options
    return norm_lib.norm(
      options.norm, self.precision, name, options.norm_epsilon
    )


def _mean(sequence: Sequence) -> Float[Array, "b d"]:
  """Of all tokens that count; 0 if none does."""
  counts = sequence.mask[:, :, None]
  total = jnp.sum(jnp.where(counts, sequence.x, 0.0), axis=1, dtype=jnp.float32)
  number = jnp.maximum(jnp.sum(counts, axis=1, dtype=jnp.float32), 1.0)
  return (total / number).astype(sequence.x.dtype)


def film(
  *,
  size: str | Mapping[str, Any] = "B",
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> FilmEncoder:
  """Layers of modulation and feed-forward.

  Args:
    size: of each modality's layers, see `variants.resolve`; they have no
      heads.
    stack: see `StackOptions`; norms, feed-forwards and dropout are as it says.
    precision: see `core.precision`.

  Raises:
    UserError: scanned layers.
  """
  return FilmEncoder(variants.resolve(size), unrolled(stack), precision)
