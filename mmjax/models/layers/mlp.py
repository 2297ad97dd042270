"""Feed-forward blocks."""

import functools

from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers.projection import Projection

ACTIVATIONS = {
  "gelu": functools.partial(nn.gelu, approximate=False),
  "gelu_tanh": functools.partial(nn.gelu, approximate=True),
  "relu": nn.relu,
  "silu": nn.silu,
}


class Mlp(nn.Module):
  """Two projections with an activation between them.

  Source: Vaswani et al. 2017, eq. 2, with GELU (Hendrycks & Gimpel 2016).
  """

  mlp_dim: int  # Width of the hidden layer, channels.
  activation: str = "gelu_tanh"
  dropout_rate: float = 0.0
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b d"], *, train: bool
  ) -> Float[Array, "*b d"]:
    if self.activation not in ACTIVATIONS:
      raise errors.unknown("activation", self.activation, ACTIVATIONS)
    hidden = Projection(
      (self.mlp_dim,),
      (axes.EMBED, axes.MLP),
      precision=self.precision,
      name="hidden",
    )(x)
    hidden = ACTIVATIONS[self.activation](hidden)
    hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
    return Projection(
      (x.shape[-1],),
      (axes.MLP, axes.EMBED),
      precision=self.precision,
      name="out",
    )(hidden)
