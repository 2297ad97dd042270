"""ResNets without batch statistics, as in front of hybrid transformers."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib

NUM_GROUPS = 32
EXPANSION = 4  # A unit's channels by those of its 3x3 convolution.
ROOT_STRIDE = 4  # Pixels, of the root's convolution and pooling together.
STD_EPSILON = 1e-5


def standardize(kernel: Float[Array, "y x c d"]) -> Float[Array, "y x c d"]:
  """Gives each output channel's weights mean 0 and deviation 1.

  Source: Qiao et al. 2019 (arXiv:1903.10520), eq. 5, with epsilon beside the
  deviation, as in the released code of ViT.
  """
  summed = (0, 1, 2)
  centred = kernel - jnp.mean(kernel, axis=summed, keepdims=True)
  deviation = jnp.std(kernel, axis=summed, keepdims=True)
  return centred / (deviation + STD_EPSILON)


class StandardizedConv(nn.Module):
  """A convolution with standardised weights and no bias."""

  features: int
  kernel_size: int  # Both sides.
  stride: int = 1
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
    side = self.kernel_size
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(
        nn.initializers.lecun_normal(), (None, None, None, axes.MLP)
      ),
      (side, side, x.shape[-1], self.features),
      jnp.float32,
    )
    dtype = self.precision.activations
    return jax.lax.conv_general_dilated(
      x.astype(dtype),
      standardize(kernel).astype(dtype),
      (self.stride, self.stride),
      "SAME",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


class BottleneckUnit(nn.Module):
  """1x1, 3x3 and 1x1 convolutions, each with a norm, beside a shortcut.

  Source: He et al. 2015 (arXiv:1512.03385), figure 5, the stride in the 3x3
  convolution. As in ViT's released hybrids the norms follow the convolutions;
  the units of BiT (Kolesnikov et al. 2019, arXiv:1912.11370) have them before.
  """

  width: int  # Channels of the 3x3 convolution.
  stride: int = 1
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b y x d"]:
    features = EXPANSION * self.width
    y = self._conv("conv_0", self.width, 1)(x)
    y = nn.relu(_norm("norm_0", self.precision)(y))
    y = self._conv("conv_1", self.width, 3, self.stride)(y)
    y = nn.relu(_norm("norm_1", self.precision)(y))
    y = self._conv("conv_2", features, 1)(y)
    # Starts as its shortcut: Goyal et al. 2017 (arXiv:1706.02677), 5.1.
    y = _norm("norm_2", self.precision, nn.initializers.zeros_init())(y)
    if x.shape[-1] != features or self.stride != 1:
      x = self._conv("conv_shortcut", features, 1, self.stride)(x)
      x = _norm("norm_shortcut", self.precision)(x)
    return nn.relu(x + y)

  def _conv(self, name, features, kernel_size, stride=1):
    return StandardizedConv(
      features, kernel_size, stride, self.precision, name=name
    )


class ResNet(nn.Module):
  """A root and stages of bottleneck units; gives a map of features.

  The first stage keeps the size that the root leaves, each other halves it
  and doubles the channels.

  Source: Dosovitskiy et al. 2021 (arXiv:2010.11929), 3.1 and B.2, in the
  layout of the released code: group norm of 32 groups in place of batch norm,
  standardised convolutions.

  Raises:
    UserError: no stages, or a width that does not split into groups.
  """

  stages: tuple[int, ...]  # Units of each.
  width: int = 64  # Channels of the root.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @property
  def stride(self) -> int:
    """Pixels from one cell of the map to the next."""
    return ROOT_STRIDE * 2 ** (len(self.stages) - 1)

  @nn.compact
  def __call__(
    self, pixels: Float[Array, "b h w c"]
  ) -> Float[Array, "b y x d"]:
    if not self.stages or min(self.stages) < 1:
      raise errors.UserError(
        f"stages={self.stages}, expected the units of each stage, e.g. "
        "(3, 4, 9)."
      )
    if self.width < 1 or self.width % NUM_GROUPS:
      raise errors.UserError(
        f"A ResNet of width {self.width} does not split into {NUM_GROUPS} "
        "groups; a width_factor of 1 is a width of 64, expected a multiple of "
        "0.5."
      )
    x = StandardizedConv(self.width, 7, 2, self.precision, name="root_conv")(
      pixels
    )
    x = nn.relu(_norm("root_norm", self.precision)(x))
    x = nn.max_pool(x, (3, 3), strides=(2, 2), padding="SAME")
    for i, num_units in enumerate(self.stages):
      for j in range(num_units):
        x = BottleneckUnit(
          self.width * 2**i,
          2 if i and not j else 1,
          self.precision,
          name=f"stage_{i}_unit_{j}",
        )(x)
    return x


def _norm(name, precision, scale_init=None):
  def over_channels(init):
    return nn.with_logical_partitioning(init, (axes.MLP,))

  return nn.GroupNorm(
    NUM_GROUPS,
    epsilon=1e-6,
    dtype=precision.activations,
    param_dtype=jnp.float32,
    scale_init=over_channels(scale_init or nn.initializers.ones_init()),
    bias_init=over_channels(nn.initializers.zeros_init()),
    name=name,
  )
