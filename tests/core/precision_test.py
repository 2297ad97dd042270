import re
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from mmjax.core import errors, precision

MIXED = precision.POLICIES["bfloat16_products"]
# The projections of attention, its two products, and a plain one.
SPECS = [
  ("ij,jk->ik", (3, 5), (5, 4)),
  ("bsd,dhk->bshk", (2, 3, 8), (8, 2, 4)),
  ("bshk,hkd->bsd", (2, 3, 2, 4), (2, 4, 8)),
  ("bqhk,bshk->bhqs", (2, 3, 2, 4), (2, 5, 2, 4)),
  ("bhqs, bshk -> bqhk", (2, 2, 3, 5), (2, 5, 2, 4)),
]


def _normal(rng, *shape):
  return rng.normal(size=shape).astype(np.float32)


def _rounded(x):
  """What is left of `x` in bfloat16, as float64 for exact products."""
  return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


def _loops(spec, a, b):
  """Einsum by its definition: a loop over every combination of indices."""
  inputs, out = spec.replace(" ", "").split("->")
  axes_a, axes_b = inputs.split(",")
  sizes = dict(zip(axes_a + axes_b, a.shape + b.shape, strict=True))
  result = np.zeros([sizes[axis] for axis in out])
  for index in np.ndindex(*sizes.values()):
    at = dict(zip(sizes, index, strict=True))
    result[tuple(at[x] for x in out)] += (
      a[tuple(at[x] for x in axes_a)] * b[tuple(at[x] for x in axes_b)]
    )
  return result


@pytest.mark.parametrize(("spec", "shape_a", "shape_b"), SPECS)
def test_float32_einsum_is_the_sum_of_products(rng, spec, shape_a, shape_b):
  a, b = _normal(rng, *shape_a), _normal(rng, *shape_b)
  got = precision.einsum(
    spec, jnp.asarray(a), jnp.asarray(b), precision.FLOAT32
  )
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(got, _loops(spec, a, b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("spec", "shape_a", "shape_b"), SPECS)
def test_mixed_einsum_rounds_operands_only(rng, spec, shape_a, shape_b):
  a, b = _normal(rng, *shape_a), _normal(rng, *shape_b)
  got = precision.einsum(spec, jnp.asarray(a), jnp.asarray(b), MIXED)
  assert got.dtype == jnp.float32
  expected = _loops(spec, _rounded(a), _rounded(b))
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("spec", "shape_a", "shape_b"), SPECS)
def test_mixed_einsum_has_the_gradients_of_rounded_operands(
  rng, spec, shape_a, shape_b
):
  a, b = _normal(rng, *shape_a), _normal(rng, *shape_b)
  out, pull_back = jax.vjp(
    lambda a, b: precision.einsum(spec, a, b, MIXED),
    jnp.asarray(a),
    jnp.asarray(b),
  )
  g = _normal(rng, *out.shape)
  grad_a, grad_b = pull_back(jnp.asarray(g))
  assert grad_a.dtype == grad_b.dtype == jnp.float32
  # Each is linear in the operand: its value along a unit is the gradient.
  a, b, g = _rounded(a), _rounded(b), _rounded(g)
  for index in np.ndindex(*shape_a):
    unit = np.zeros(shape_a)
    unit[index] = 1.0
    slope = np.sum(np.einsum(spec, unit, b) * g)
    np.testing.assert_allclose(grad_a[index], slope, rtol=1e-5, atol=1e-6)
  for index in np.ndindex(*shape_b):
    unit = np.zeros(shape_b)
    unit[index] = 1.0
    slope = np.sum(np.einsum(spec, a, unit) * g)
    np.testing.assert_allclose(grad_b[index], slope, rtol=1e-5, atol=1e-6)


def test_mixed_einsum_gives_gradients_in_the_dtypes_of_its_operands(rng):
  a = jnp.asarray(_normal(rng, 3, 5)).astype(jnp.bfloat16)
  b = jnp.asarray(_normal(rng, 5, 4))
  grad_a, grad_b = jax.grad(
    lambda a, b: jnp.sum(precision.einsum("ij,jk->ik", a, b, MIXED)),
    argnums=(0, 1),
  )(a, b)
  assert grad_a.dtype == jnp.bfloat16 and grad_b.dtype == jnp.float32


def test_mixed_einsum_has_bfloat16_operands_in_the_backward_pass_too():
  def loss(a, b):
    return jnp.sum(precision.einsum("ij,jk->ik", a, b, MIXED))

  jaxpr = str(
    jax.make_jaxpr(jax.grad(loss, argnums=(0, 1)))(
      jnp.ones((3, 5)), jnp.ones((5, 4))
    )
  )
  names = dict(re.findall(r"\b(\w+):(\w+)\[", jaxpr))
  products = re.findall(r"= dot_general\[.*?\] (\w+) (\w+)", jaxpr, re.S)
  assert len(products) == 3  # One forward, two backward.
  for operands in products:
    assert [names[o] for o in operands] == ["bf16", "bf16"]


def test_bfloat16_einsum_gives_bfloat16(rng):
  a, b = _normal(rng, 3, 5), _normal(rng, 5, 4)
  got = precision.einsum(
    "ij,jk->ik",
    jnp.asarray(a),
    jnp.asarray(b),
    precision.POLICIES["bfloat16"],
  )
  assert got.dtype == jnp.bfloat16
  expected = _rounded(a) @ _rounded(b)
  # Eight bits of mantissa in the result.
  np.testing.assert_allclose(
    got.astype(jnp.float32), expected, rtol=2**-7, atol=2**-7
  )


def test_a_policy_is_found_by_name():
  policy = precision.policy("bfloat16_products")
  assert jnp.dtype(policy.activations) == jnp.float32
  assert jnp.dtype(policy.products) == jnp.bfloat16


@pytest.mark.parametrize(
  ("flags", "name"),
  [
    ({"avx2", "amx_bf16"}, "bfloat16_products"),
    ({"avx512f", "avx512_bf16"}, "bfloat16_products"),
    ({"avx512f"}, "float32"),
    (set(), "float32"),
  ],
)
def test_the_automatic_policy_asks_the_cpu(monkeypatch, flags, name):
  monkeypatch.setattr(precision, "cpu_flags", lambda: frozenset(flags))
  assert jax.default_backend() == "cpu"
  assert precision.policy("auto") is precision.POLICIES[name]


def test_cpu_flags_are_those_that_the_kernel_lists():
  listed = Path("/proc/cpuinfo").read_text().count("flags")
  assert bool(listed) == ("fpu" in precision.cpu_flags())


def test_an_unknown_policy_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'bfloat16'"):
    precision.policy("bfloat61")
