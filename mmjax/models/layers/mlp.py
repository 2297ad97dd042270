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
  # The approximation by a sigmoid (Hendrycks & Gimpel 2016, 2), as in CLIP.
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "relu": nn.relu,
  "silu": nn.silu,
}


class Mlp(nn.Module):
  """Two projections with an activation between them.

  Source: Vaswani et al. 2017, eq. 2, with GELU (Hendrycks & Gimpel 2016). With
  `gated`, a third projection multiplies the activated one (Shazeer 2020,
  arXiv:2002.05202, eq. 6): of "silu" this is SwiGLU.
  """

  mlp_dim: int  # Width of the hidden layer, channels.
  activation: str = "gelu_tanh"
  dropout_rate: float = 0.0
  gated: bool = False
  use_bias: bool = True
  axis: str = axes.MLP  # What sharding calls the hidden width.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b d"], *, train: bool
  ) -> Float[Array, "*b d"]:
    if self.activation not in ACTIVATIONS:
      raise errors.unknown("activation", self.activation, ACTIVATIONS)

    def project(features, names, name):
      return Projection(
        (features,),
        names,
        use_bias=self.use_bias,
        precision=self.precision,
        name=name,
      )

    into = (axes.EMBED, self.axis)
    hidden = project(self.mlp_dim, into, "hidden")(x)
    if self.gated:
      gate = project(self.mlp_dim, into, "gate")(x)
      hidden = ACTIVATIONS[self.activation](gate) * hidden
    else:
      hidden = ACTIVATIONS[self.activation](hidden)
    hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not train)
    return project(x.shape[-1], (self.axis, axes.EMBED), "out")(hidden)
