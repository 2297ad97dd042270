"""Attention in one kernel of NVIDIA's GPUs, without its matrix in memory.

The kernel is cuDNN's (by `jax.nn.dot_product_attention`), after Dao et al. 2022
(arXiv:2205.14135). What may not be seen is told to it as lengths, which costs
nothing; a mask would be a bias, read for each pair. So a stack sorts its tokens
once, those that count first, and sorts them back at its end.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmjax.core import axes

IMPLEMENTATION = "cudnn"
MAX_HEAD_DIM, HEAD_DIM_STEP = 128, 8  # Of the kernel.
MIN_CAPABILITY = 8.0  # Of the GPU.


def available(dtype: DTypeLike, head_dim: int) -> bool:
  """Whether the kernel can be used where this is traced.

  That is on a GPU of NVIDIA since Ampere, in bfloat16, with all tokens of an
  example on one device.
  """
  return (
    _capability() >= MIN_CAPABILITY
    and dtype == jnp.bfloat16
    and head_dim <= MAX_HEAD_DIM
    and head_dim % HEAD_DIM_STEP == 0
    and not _sequence_is_split()
  )


def attention(
  query: Float[Array, "b n k d"],
  key: Float[Array, "b m k d"],
  value: Float[Array, "b m k d"],
  mask: Bool[Array, "b 1 m"],
) -> Float[Array, "b n k d"]:
  """As `attention.dot_product_attention`, of keys that are `sort`ed."""
  lengths = jnp.sum(mask[:, 0], axis=1, dtype=jnp.int32)
  out = jax.nn.dot_product_attention(
    query,
    key,
    value,
    # Of no key at all there is no softmax; what comes of it is dropped.
    key_value_seq_lengths=jnp.maximum(lengths, 1),
    implementation=IMPLEMENTATION,
  )
  return jnp.where((lengths > 0)[:, None, None, None], out, 0.0)


@struct.dataclass
class Order:
  """Tokens that count, in their order, then the others."""

  index: Int[Array, "b n"]  # Where each was.
  inverse: Int[Array, "b n"]  # Where each is.

  def sort(self, x: Shaped[Array, "b n ..."]) -> Shaped[Array, "b n ..."]:
    return _take(x, self.index, self.inverse)

  def sort_back(self, x: Shaped[Array, "b n ..."]) -> Shaped[Array, "b n ..."]:
    return _take(x, self.inverse, self.index)

  def sort_mask(self, mask: Bool[Array, "b 1 n"]) -> Bool[Array, "b 1 n"]:
    return self.sort(mask[:, 0])[:, None]


def order(mask: Bool[Array, "b 1 n"]) -> Order:
  """The order that puts first what counts."""
  index = jnp.argsort(~mask[:, 0], axis=1, stable=True)
  return Order(index, jnp.argsort(index, axis=1))


@jax.custom_vjp
def _take(x, index, inverse):
  """The gradient of a permutation is one too, not a sum at each place."""
  del inverse
  return _gather(x, index)


def _gather(x, index):
  return jax.vmap(lambda rows, i: rows[i])(x, index)


_take.defvjp(
  lambda x, index, inverse: (_gather(x, index), inverse),
  lambda inverse, cotangent: (_gather(cotangent, inverse), None, None),
)


def _capability():
  """Of the GPU; 0 = it is none of NVIDIA's."""
  said = getattr(jax.devices()[0], "compute_capability", "")
  try:
    return float(said)
  except (TypeError, ValueError):  # Others have names.
    return 0.0


def _sequence_is_split():
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return False
  placed = nn.logical_to_mesh_axes((axes.ACT_SEQ,))
  name = placed[0] if placed else None
  return isinstance(name, str) and mesh.shape[name] > 1
