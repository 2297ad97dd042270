"""Transformers by hand: float64, loops over examples and heads."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn


def _array(x):
  return np.asarray(x, np.float64)


def _layer_norm(params, x, epsilon=1e-6):
  x = _array(x)
  centred = x - x.mean(-1, keepdims=True)
  x = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon)
  return x * _array(params["scale"]) + _array(params["bias"])


def _attention(params, x, context, mask):
  """Attention of one example: x is n d, context m e, mask n m."""
  x, context = _array(x), _array(context)
  out = np.zeros_like(x) + _array(params["out"]["bias"])
  num_heads = params["query"]["kernel"].shape[1]
  for head in range(num_heads):
    query, key, value = (
      source @ _array(params[name]["kernel"])[:, head]
      + _array(params[name]["bias"])[head]
      for name, source in (("query", x), ("key", context), ("value", context))
    )
    for i in range(len(x)):
      seen = np.flatnonzero(mask[i])
      if not len(seen):
        continue
      logits = key[seen] @ query[i] / np.sqrt(query.shape[1])
      probs = np.exp(logits - logits.max())
      mixed = probs / probs.sum() @ value[seen]
      out[i] += mixed @ _array(params["out"]["kernel"])[head]
  return out


def _gelu(x):
  """The tanh approximation of Hendrycks and Gimpel."""
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _linear(params, x):
  x = _array(x) @ _array(params["kernel"])
  return x + _array(params["bias"]) if "bias" in params else x


def _mlp(params, x):
  return _linear(params["out"], _gelu(_linear(params["hidden"], x)))


def _block(params, x, mask):
  y = _layer_norm(params["attention_norm"], x)
  x = _array(x) + _attention(params["attention"], y, y, mask)
  return x + _mlp(params["mlp"], _layer_norm(params["mlp_norm"], x))


def _stack(params, x, mask):
  """Stack of one example; mask is of the keys, or n m."""
  mask = np.broadcast_to(mask, (len(x), len(x)))
  for name in sorted(n for n in params if n.startswith("layer_")):
    x = _block(params[name], x, mask)
  return _layer_norm(params["norm"], x)


@pytest.fixture(scope="session")
def by_hand():
  return types.SimpleNamespace(
    layer_norm=_layer_norm,
    attention=_attention,
    gelu=_gelu,
    linear=_linear,
    mlp=_mlp,
    block=_block,
    stack=_stack,
  )


def _randomized(module, *args, **kwargs):
  """Parameters of a module for these arguments, none of them 0 or 1.

  Drawn by numpy: nothing is compiled.
  """
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    centre = 1.0 if jax.tree_util.keystr(path).endswith("['scale']") else 0.0
    values = centre + 0.3 * rng.normal(size=leaf.shape)
    return jnp.asarray(values, leaf.dtype)

  boxed = jax.eval_shape(
    lambda: module.init(jax.random.key(0), *args, **kwargs)
  )
  return jax.tree_util.tree_map_with_path(draw, nn.meta.unbox(boxed["params"]))


@pytest.fixture(scope="session")
def randomized():
  return _randomized
