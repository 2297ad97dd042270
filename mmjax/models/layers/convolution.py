"""Convolutions that turn pixels into a grid of features."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers.norm import layer_norm


class ConvPatches(nn.Module):
  """3x3 convolutions of stride 2, until one cell stands for one patch.

  Channels double at each, up to half of `embed_dim`. Overlapping, they learn
  edges and colours from far fewer pictures than one linear map of a patch.
  Source: Xiao et al. 2021 (arXiv:2106.14881), 3, with LayerNorm in place of
  batch statistics.

  Raises:
    UserError: the patch size is no power of 2, or `embed_dim` no multiple.
  """

  patch_size: int  # Pixels.
  embed_dim: int
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b n q"]:
    num_convs = self.patch_size.bit_length() - 1
    if self.patch_size != 2**num_convs or self.embed_dim % self.patch_size:
      raise errors.UserError(
        f"A convolutional stem takes a patch_size that is a power of 2 and "
        f"divides embed_dim; got patch_size={self.patch_size}, "
        f"embed_dim={self.embed_dim}."
      )
    x = pixels.astype(self.precision.activations)
    for i in range(num_convs):
      x = nn.Conv(
        self.embed_dim // 2 ** (num_convs - i),
        (3, 3),
        strides=(2, 2),
        use_bias=False,  # The norm has one.
        dtype=self.precision.activations,
        param_dtype=jnp.float32,
        kernel_init=nn.with_logical_partitioning(
          nn.initializers.he_normal(), (None, None, None, axes.MLP)
        ),
        name=f"conv_{i}",
      )(x)
      x = nn.gelu(layer_norm(self.precision, f"norm_{i}")(x))
    b, rows, columns, q = x.shape
    return x.reshape(b, rows * columns, q)  # b (rows columns) q
