"""What is computed in which dtype, and the matrix product that obeys it.

  name                 parameters  activations  operands of products  results
  float32              f32         f32          f32                   f32
  bfloat16             f32         bf16         bf16                  bf16
  bfloat16_products    f32         f32          bf16                  f32

Softmax, norms and losses are computed in float32 under all of them.
`bfloat16_products` is what TPUs do with float32 by default; on CPUs with
bfloat16 instructions it is about 1.5 (AVX-512) to 1.8 (AMX) times as fast as
`float32`.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float

from mmjax.core import errors


@dataclasses.dataclass(frozen=True)
class Precision:
  """Dtypes of the activations and of the operands of matrix products."""

  activations: DTypeLike = jnp.float32
  products: DTypeLike = jnp.float32


FLOAT32 = Precision()
POLICIES = {
  "float32": FLOAT32,
  "bfloat16": Precision(jnp.bfloat16, jnp.bfloat16),
  "bfloat16_products": Precision(jnp.float32, jnp.bfloat16),
}

# As Linux names the instructions: Intel's tiles; dot products, also of AMD.
BFLOAT16_CPU_FLAGS = ("amx_bf16", "avx512_bf16")


def policy(name: str) -> Precision:
  """Returns a policy by name; "auto" picks one for the default backend.

  Raises:
    UserError: unknown name.
  """
  if name == "auto":
    name = fastest(jax.default_backend())
  if name not in POLICIES:
    raise errors.unknown("precision", name, [*POLICIES, "auto"])
  return POLICIES[name]


def fastest(backend: str) -> str:
  """The policy that "auto" is on a backend: "cpu", "gpu", "tpu"."""
  if backend != "cpu":
    return "bfloat16"
  has_bfloat16 = not cpu_flags().isdisjoint(BFLOAT16_CPU_FLAGS)
  return "bfloat16_products" if has_bfloat16 else "float32"


def cpu_flags() -> frozenset[str]:
  """What the CPU says it can do; empty where Linux does not tell."""
  cpuinfo = Path("/proc/cpuinfo")
  text = cpuinfo.read_text("utf-8") if cpuinfo.exists() else ""
  return frozenset(text.split())


def einsum(
  spec: str,
  a: Float[Array, "..."],
  b: Float[Array, "..."],
  precision: Precision,
) -> Float[Array, "..."]:
  """A product of two arrays under a precision policy.

  `spec` names every axis (no ellipsis), and an axis of one operand also
  stands in the other or in the result.
  """
  if (
    jnp.dtype(precision.activations) == jnp.float32
    and jnp.dtype(precision.products) != jnp.float32
  ):
    return _mixed_einsum(spec, jnp.dtype(precision.products), a, b)
  dtype = precision.activations
  return jnp.einsum(spec, a.astype(dtype), b.astype(dtype))


# Autodiff would give the two backward products float32 operands, which no
# matrix unit serves: the rule keeps the cast in the backward pass.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _mixed_einsum(spec, dtype, a, b):
  return jnp.einsum(
    spec, a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32
  )


def _mixed_forward(spec, dtype, a, b):
  # Saves the casts, half the bytes; the empty arrays carry the dtypes.
  small_a, small_b = a.astype(dtype), b.astype(dtype)
  out = jnp.einsum(spec, small_a, small_b, preferred_element_type=jnp.float32)
  return out, (small_a, small_b, a[..., :0], b[..., :0])


def _mixed_backward(spec, dtype, saved, cotangent):
  a, b, like_a, like_b = saved
  inputs, out = spec.replace(" ", "").split("->")
  axes_a, axes_b = inputs.split(",")
  g = cotangent.astype(dtype)
  grad_a = jnp.einsum(
    f"{out},{axes_b}->{axes_a}", g, b, preferred_element_type=jnp.float32
  )
  grad_b = jnp.einsum(
    f"{axes_a},{out}->{axes_b}", a, g, preferred_element_type=jnp.float32
  )
  return grad_a.astype(like_a.dtype), grad_b.astype(like_b.dtype)


_mixed_einsum.defvjp(_mixed_forward, _mixed_backward)
