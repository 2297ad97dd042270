"""The one weight matrix of the library: logical axes, precision, einsum."""

import string
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import precision as precision_lib
from mmjax.models.layers.placement import gather


class Projection(nn.Module):
  """Maps the last `num_in` axes of an array to `features` linearly.

  Linen's `DenseGeneral` flattens its kernel at init, which fails under a mesh
  with logical rules; here the kernel has its real shape throughout.
  """

  features: tuple[int, ...]  # Sizes of the output axes.
  kernel_axes: tuple[str, ...]  # Logical names: input axes, then output axes.
  num_in: int = 1  # Number of input axes that are summed over.
  use_bias: bool = True
  kernel_init: Callable[..., Any] | None = None  # Default: Xavier uniform.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
    lead, shape = x.ndim - self.num_in, x.shape[x.ndim - self.num_in :]
    out_axes = tuple(range(self.num_in, self.num_in + len(self.features)))
    init = self.kernel_init or nn.initializers.variance_scaling(
      1.0,
      "fan_avg",
      "uniform",
      in_axis=tuple(range(self.num_in)),
      out_axis=out_axes,
    )
    kernel = self.param(
      "kernel",
      nn.with_logical_partitioning(init, self.kernel_axes),
      (*shape, *self.features),
      jnp.float32,
    )
    kernel = gather(kernel.astype(self.precision.activations), self.kernel_axes)
    letters = string.ascii_lowercase
    batch, rest = letters[:lead], letters[lead:]
    summed, out = rest[: self.num_in], rest[self.num_in :][: len(self.features)]
    y = precision_lib.einsum(
      f"{batch}{summed},{summed}{out}->{batch}{out}", x, kernel, self.precision
    )
    if self.use_bias:
      bias = self.param(
        "bias",
        nn.with_logical_partitioning(
          nn.initializers.zeros_init(), self.kernel_axes[self.num_in :]
        ),
        self.features,
        jnp.float32,
      )
      y = y + jnp.expand_dims(bias.astype(y.dtype), tuple(range(lead)))
    return y


class Embedding(nn.Module):
  """A table of learned vectors, looked up by id."""

  num_rows: int
  embed_dim: int
  axis: str  # Logical name of the rows: VOCAB, POSITION, ...
  embed_axis: str
  table_init: Callable[..., Any] = nn.initializers.normal(0.02)

  def setup(self):
    self.table = self.param(
      "table",
      nn.with_logical_partitioning(
        self.table_init, (self.axis, self.embed_axis)
      ),
      (self.num_rows, self.embed_dim),
      jnp.float32,
    )

  def __call__(self, ids: jax.Array) -> Float[Array, "..."]:
    return jnp.take(self.table, ids, axis=0)

  def rows(self) -> Float[Array, "n d"]:
    """The whole table."""
    return self.table
