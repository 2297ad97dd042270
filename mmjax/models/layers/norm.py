"""Normalisation, with parameters that carry logical axes."""

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib

KINDS = ("layer_norm", "rms_norm")


def layer_norm(
  precision: precision_lib.Precision, name: str, epsilon: float = 1e-6
) -> nn.LayerNorm:
  """A LayerNorm (Ba et al. 2016) with statistics in float32."""
  return nn.LayerNorm(
    epsilon=epsilon,
    dtype=precision.activations,
    param_dtype=jnp.float32,
    scale_init=_partitioned(nn.initializers.ones_init(), axes.EMBED),
    bias_init=_partitioned(nn.initializers.zeros_init(), axes.EMBED),
    name=name,
  )


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
