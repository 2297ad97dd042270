"""What stands between the last features and the logits of a task."""

from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes
from mmjax.core import precision as precision_lib
from mmjax.models.layers.norm import layer_norm
from mmjax.models.layers.projection import Projection


class LinearHead(nn.Module):
  """One projection to logits; starts at zero, so at chance."""

  num_classes: int
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    return Projection(
      (self.num_classes,),
      (axes.EMBED, axes.VOCAB),
      kernel_init=nn.initializers.zeros_init(),
      precision=self.precision,
      name="logits",
    )(x)


class TokenHead(nn.Module):
  """Projection, GELU, norm, projection: BERT's head for hidden tokens.

  Source: Devlin et al. 2019, released code. The output starts small, so that
  the first loss is close to chance.
  """

  num_classes: int
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b v"]:
    x = Projection(
      (x.shape[-1],),
      (axes.EMBED, axes.MLP),
      precision=self.precision,
      name="hidden",
    )(x)
    x = layer_norm(self.precision, "norm")(nn.gelu(x))
    # Two kernels in a row split over both mesh axes get wrong gradients from
    # XLA's partitioner (jax 0.10.2): what is between them is given a place.
    names = (axes.ACT_BATCH, *[None] * (x.ndim - 2), axes.ACT_EMBED)
    x = nn.with_logical_constraint(x, names)
    return Projection(
      (self.num_classes,),
      (axes.EMBED, axes.VOCAB),
      kernel_init=nn.initializers.normal(0.02),
      precision=self.precision,
      name="logits",
    )(x)


HEADS = {
  "linear": LinearHead,
  "token": TokenHead,
}
