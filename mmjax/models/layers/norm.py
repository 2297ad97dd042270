"""Normalisation, with parameters that carry logical axes."""

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes
from mmjax.core import precision as precision_lib


def layer_norm(
  precision: precision_lib.Precision, name: str, epsilon: float = 1e-6
) -> nn.LayerNorm:
  """A LayerNorm (Ba et al. 2016) with statistics in float32."""
  return nn.LayerNorm(
    epsilon=epsilon,
    dtype=precision.activations,
    param_dtype=jnp.float32,
    scale_init=nn.with_logical_partitioning(
      nn.initializers.ones_init(), (axes.EMBED,)
    ),
    bias_init=nn.with_logical_partitioning(
      nn.initializers.zeros_init(), (axes.EMBED,)
    ),
    name=name,
  )


def unit_length(x, epsilon: float = 1e-6):
  """Divides the last axis by its L2 norm; in float32, 0 stays 0."""
  x = x.astype(jnp.float32)
  return x / jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + epsilon**2)
