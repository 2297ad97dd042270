"""Attention by one kernel; on CPUs the same call by another implementation."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors, precision
from mmjax.models.layers import flash
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.transformer import Stack
from mmjax.sharding import rules
from mmjax.sharding.mesh import MeshShape, make_mesh

B, N, M, D, MLP, HEADS = 3, 6, 5, 16, 24, 2
CUDNN = StackOptions(attention="cudnn")


@pytest.fixture
def elsewhere(monkeypatch):
  """The kernel can be used, and is XLA's; counts the calls."""
  calls = []
  kernel = jax.nn.dot_product_attention

  def count(*args, **kwargs):
    assert kwargs.get("bias") is None and kwargs.get("mask") is None
    calls.append(kwargs["key_value_seq_lengths"])
    return kernel(*args, **kwargs)

  monkeypatch.setattr(jax.nn, "dot_product_attention", count)
  monkeypatch.setattr(flash, "IMPLEMENTATION", "xla")
  monkeypatch.setattr(flash, "available", lambda dtype, head_dim: True)
  return calls


@pytest.fixture(scope="module")
def given():
  rng = np.random.default_rng(0)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
  # Gaps in between, all of it, none of it.
  mask = np.array([[1, 0, 1, 1, 0, 1], [1] * 6, [0] * 6], bool)
  return {
    "x": normal(B, N, D),
    "mask": jnp.asarray(mask[:, None]),
    "angles": normal(1, N, D // HEADS // 2),
    "context": normal(B, M, D),
    "context_mask": jnp.asarray(rng.random((B, 1, M)) < 0.6),
  }


def _value_and_grad(options, given, **fields):
  """What is seen of the tokens that count, and gradients of all."""
  module = Stack(2, HEADS, MLP, options, **fields)
  variables = module.init(jax.random.key(0), **given, train=False)
  weights = jax.random.normal(jax.random.key(1), (B, N, D))

  def loss(params, x, context):
    out = module.apply(
      {"params": params},
      **{**given, "x": x, "context": context},
      train=False,
    )
    counts = jnp.swapaxes(given["mask"][:, :1], 1, 2)
    return jnp.sum(out * weights * counts), out * counts

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(
    variables["params"], given["x"], given["context"]
  )


@pytest.mark.parametrize("scan", [False, True])
def test_a_stack_is_the_same(scan, given, elsewhere):
  expected = _value_and_grad(StackOptions(scan=scan), given)
  assert not elsewhere
  got = _value_and_grad(StackOptions(scan=scan, attention="cudnn"), given)
  assert elsewhere
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("why", ["causal", "experts", "elsewhere"])
def test_what_the_kernel_cannot_do_is_done_as_before(
  why, given, elsewhere, monkeypatch
):
  fields, given = {}, {k: v for k, v in given.items() if "context" not in k}
  given |= {"context": None, "context_mask": None}
  if why == "causal":
    tril = jnp.tril(jnp.ones((N, N), bool))[None]
    given["mask"] = given["mask"] & tril
  elif why == "experts":
    fields["experts"] = (("text", 2), ("image", N - 2))
  else:
    monkeypatch.undo()
  module = Stack(1, HEADS, MLP, CUDNN, **fields)
  module.init(jax.random.key(0), **given, train=False)
  assert not elsewhere


@pytest.mark.parametrize(
  "dtype, head_dim, capability, expected",
  [
    (jnp.bfloat16, 64, "9.0", True),
    (jnp.bfloat16, 64, "8.0", True),
    (jnp.bfloat16, 64, "7.5", False),
    (jnp.bfloat16, 64, "gfx90a", False),
    (jnp.bfloat16, 64, None, False),
    (jnp.float32, 64, "9.0", False),
    (jnp.bfloat16, 136, "9.0", False),
    (jnp.bfloat16, 36, "9.0", False),
  ],
)
def test_when_the_kernel_is_used(
  dtype, head_dim, capability, expected, monkeypatch
):
  device = types.SimpleNamespace(compute_capability=capability)
  monkeypatch.setattr(jax, "devices", lambda: [device])
  assert flash.available(dtype, head_dim) == expected


def test_unknown_kind_of_attention_is_refused():
  with pytest.raises(errors.UserError, match="Did you mean 'cudnn'"):
    StackOptions(attention="cuddn")


@pytest.mark.gpu
def test_on_a_gpu_its_program_has_the_kernel_without_a_bias():
  policy = precision.POLICIES["bfloat16"]
  x = jax.random.normal(jax.random.key(0), (4, 128, 256), jnp.bfloat16)
  mask = (
    jnp.arange(128)[None, None] < jnp.array([128, 100, 3, 64])[:, None, None]
  )
  outs = {}
  for kind in ("xla", "cudnn"):
    module = Stack(1, 4, 512, StackOptions(attention=kind), precision=policy)
    params = module.init(jax.random.key(0), x, mask=mask, train=False)["params"]

    def loss(params, x, module=module):
      out = module.apply({"params": params}, x, mask=mask, train=False)
      return jnp.sum(jnp.where(mask[:, 0, :, None], out, 0) ** 2), out

    run = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))
    text = run.lower(params, x).compile().as_text()
    assert ("__cudnn$fmha" in text) == (kind == "cudnn")
    assert "fmhaScaleBias" not in text
    outs[kind] = run(params, x)
  for a, b in zip(*map(jax.tree.leaves, outs.values()), strict=True):
    a, b = (np.asarray(y, np.float32) for y in (a, b))
    assert np.abs(a - b).max() <= 0.05 * np.abs(b).max()


@pytest.mark.parametrize("ways, expected", [(1, True), (2, False)])
def test_the_kernel_needs_all_tokens_on_one_device(ways, expected, monkeypatch):
  mesh = make_mesh(MeshShape(data=1, sequence=ways), jax.devices()[:ways])
  monkeypatch.setattr(flash, "_capability", lambda: 9.0)
  assert flash.available(jnp.bfloat16, 64)
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.rules("fsdp_tensor")):
    assert flash.available(jnp.bfloat16, 64) == expected
