"""Normalisation, with parameters that carry logical axes."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib

KINDS = ("layer_norm", "rms_norm")


class LayerNorm(nn.Module):
  """Mean 0 and variance 1 over the channels, then a learned scale and bias.

  Source: Ba et al. 2016 (arXiv:1607.06450), eq. 4; statistics in float32.
  """

  epsilon: float = 1e-6
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    def parameter(name, init):
      init = _partitioned(init, axes.EMBED)
      return self.param(name, init, x.shape[-1:], jnp.float32)

    scale = parameter("scale", nn.initializers.ones_init())
    bias = parameter("bias", nn.initializers.zeros_init())
    y = _normalized(x.astype(jnp.float32), scale, bias, self.epsilon)
    return y.astype(self.precision.activations)


# Left to autodiff, XLA computes the statistics again in what reads them.
@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalized(x, scale, bias, epsilon):
  return _normalized_forward(x, scale, bias, epsilon)[0]


def _normalized_forward(x, scale, bias, epsilon):
  mean = jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
  rate = jax.lax.rsqrt(variance + epsilon)
  lead = tuple(range(x.ndim - 1))
  wide = jnp.expand_dims(scale, lead), jnp.expand_dims(bias, lead)
  return (x - mean) * rate * wide[0] + wide[1], (x, mean, rate, wide[0])


def _normalized_backward(epsilon, saved, cotangent):
  del epsilon
  x, mean, rate, scale = saved
  lead = tuple(range(x.ndim - 1))
  y = (x - mean) * rate
  g = cotangent * scale
  along = jnp.mean(g * y, axis=-1, keepdims=True)
  grad_x = rate * (g - jnp.mean(g, axis=-1, keepdims=True) - y * along)
  grad_scale = jnp.sum(cotangent * y, axis=lead)
  return grad_x, grad_scale, jnp.sum(cotangent, axis=lead)


_normalized.defvjp(_normalized_forward, _normalized_backward)


def layer_norm(
  precision: precision_lib.Precision, name: str, epsilon: float = 1e-6
) -> LayerNorm:
  """A `LayerNorm` by name."""
  return LayerNorm(epsilon, precision, name=name)


def rms_norm(
  precision: precision_lib.Precision,
  name: str,
  epsilon: float = 1e-6,
  axis: str = axes.EMBED,
) -> nn.RMSNorm:
  """Scales by the root of the mean square (Zhang & Sennrich 2019).

  No mean is taken off and nothing is added; statistics in float32.
  """
  return nn.RMSNorm(
    epsilon=epsilon,
    dtype=precision.activations,
    param_dtype=jnp.float32,
    scale_init=_partitioned(nn.initializers.ones_init(), axis),
    name=name,
  )


def norm(
  kind: str,
  precision: precision_lib.Precision,
  name: str,
  epsilon: float = 1e-6,
) -> nn.Module:
  """A norm by its kind.

  Raises:
    UserError: unknown kind.
  """
  if kind not in KINDS:
    raise errors.unknown("norm", kind, KINDS)
  make = layer_norm if kind == "layer_norm" else rms_norm
  return make(precision, name, epsilon)


def _partitioned(init, axis):
  return nn.with_logical_partitioning(init, (axis,))


def unit_length(x, epsilon: float = 1e-6):
  """Divides the last axis by its L2 norm; in float32, 0 stays 0."""
  x = x.astype(jnp.float32)
  return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon**2)
