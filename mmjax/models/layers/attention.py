"""Scaled dot-product attention and the module around it."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes
from mmjax.core import precision as precision_lib
from mmjax.models.layers import flash as flash_lib
from mmjax.models.layers.norm import rms_norm
from mmjax.models.layers.placement import place
from mmjax.models.layers.positions import rotate
from mmjax.models.layers.projection import Projection

# Collection of keys and values to go on from, see `Attention`.
CACHE = "cache"
_MASKED = -1e30  # Finite, so that a row with nothing to attend to has no NaN.


def dot_product_attention(
  query: Float[Array, "b n k d"],
  key: Float[Array, "b m k d"],
  value: Float[Array, "b m k d"],
  mask: Bool[Array, "b q m"],
  precision: precision_lib.Precision = precision_lib.FLOAT32,
  bias: Float[Array, "#b k n m"] | None = None,
) -> Float[Array, "b n k d"]:
  """Computes softmax(Q K^T / sqrt(d) + bias) V over what `mask` allows.

  Source: Vaswani et al. 2017, eq. 1. The softmax is in float32. A query that
  may attend to nothing gets zeros. The mask's q is n, or 1 for all queries.
  """
  dtype = precision.activations
  if bias is not None:
    shape = (query.shape[0], *bias.shape[1:])
    bias = jnp.broadcast_to(bias.astype(jnp.float32), shape)
  return _attention(
    precision,
    query.astype(dtype),
    key.astype(dtype),
    value.astype(dtype),
    mask,
    bias,
  )


# Autodiff saves the logits, the shifted logits and the probabilities; the
# rule saves the probabilities alone and forms the softmax's gradient in one
# pass (on 2 CPU cores about 1.1 times the speed, 0.8 times the memory).
@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attention(precision, query, key, value, mask, bias):
  return _attention_forward(precision, query, key, value, mask, bias)[0]


def _attention_forward(precision, query, key, value, mask, bias):
  # Heads before tokens, as batched products want it, once for both directions;
  # what is kept has the dtype that products read.
  query = query * (query.shape[-1] ** -0.5)
  query, key, value = (
    jnp.swapaxes(x, 1, 2).astype(precision.products)
    for x in (query, key, value)
  )  # b k n d
  logits = precision_lib.einsum("bknd,bkmd->bknm", query, key, precision)
  logits = logits.astype(jnp.float32)
  if bias is not None:
    logits = logits + bias
  logits = jnp.where(mask[:, None], logits, _MASKED)
  # Nothing between softmax and product: so XLA makes one loop of them. Rows
  # that see nothing get their zeros afterwards.
  probs = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  out = precision_lib.einsum("bknm,bkmd->bknd", probs, value, precision)
  sees = jnp.any(mask, axis=-1)[:, :, None, None]  # b q 1 1
  out = jnp.where(sees, jnp.swapaxes(out, 1, 2), 0.0)  # b n k d
  has_bias = None if bias is None else ()  # Two trees without arrays.
  return out, (query, key, value, probs, sees, has_bias)


def _attention_backward(precision, saved, cotangent):
  query, key, value, probs, sees, has_bias = saved
  einsum = functools.partial(precision_lib.einsum, precision=precision)
  cotangent = jnp.where(sees, cotangent, 0.0).astype(value.dtype)
  cotangent = jnp.swapaxes(cotangent, 1, 2)  # b k n d
  grad_value = einsum("bknm,bknd->bkmd", probs, cotangent)
  grad_probs = einsum("bknd,bkmd->bknm", cotangent, value)
  p, dp = probs.astype(jnp.float32), grad_probs.astype(jnp.float32)
  grad_logits = p * (dp - jnp.sum(p * dp, axis=-1, keepdims=True))
  grad_bias = None if has_bias is None else grad_logits
  grad_logits = grad_logits.astype(query.dtype)
  grad_query = einsum("bknm,bkmd->bknd", grad_logits, key)
  grad_key = einsum("bknm,bknd->bkmd", grad_logits, query)
  scale = query.shape[-1] ** -0.5  # `query` was saved scaled.
  grads = grad_query * scale, grad_key, grad_value
  return *(jnp.swapaxes(g, 1, 2) for g in grads), None, grad_bias


_attention.defvjp(_attention_forward, _attention_backward)


class Attention(nn.Module):
  """Multi-head attention of `x` to itself, or to `context`.

  With `qk_norm`, queries and keys are normalised per head before their product
  (Dehghani et al. 2023, arXiv:2302.05442, 2.1).
  """

  num_heads: int
  use_bias: bool = True
  qk_norm: bool = False
  precision: precision_lib.Precision = precision_lib.FLOAT32
  key_bias: bool = True  # Only with `use_bias`.
  # By the kernel of `layers.flash`; the keys that count come first then.
  flash: bool = False

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b n d"],
    context: Float[Array, "b m e"] | None = None,
    *,
    mask: Bool[Array, "b q m"],
    angles: Float[Array, "#b n r"] | None = None,
    slots: Int[Array, "b n"] | None = None,
    bias: Float[Array, "#b k n m"] | None = None,
  ) -> Float[Array, "b n d"]:
    """Attends.

    With `slots`, keys and values are kept in the collection "cache", as `keys`
    and `values`, b m k d. To itself, `x` then attends to all that was written
    so far; keys and values of a context are computed in the first call, and
    later ones read of their `context` nothing.

    Args:
      x: makes the queries; keys and values too, without a context.
      context: makes keys and values.
      mask: True where a query (or all, q = 1) may look.
      angles: of rotary positions, radians; see `positions.rotary_angles`.
        Only for attention of `x` to itself.
      slots: where in the cache the keys and values of `x` are written; m, the
        number of its slots, is that of the mask.
      bias: added to the logits.
    """
    embed_dim = x.shape[-1]
    if embed_dim % self.num_heads:
      raise ValueError(
        f"embed_dim={embed_dim} does not split over num_heads={self.num_heads}."
      )
    heads = (self.num_heads, embed_dim // self.num_heads)

    def split(name):
      return Projection(
        heads,
        (axes.EMBED, axes.HEADS, axes.HEAD_DIM),
        use_bias=self.use_bias and (self.key_bias or name != "key"),
        precision=self.precision,
        name=name,
      )

    def normed(name, y):
      if not self.qk_norm:
        return y
      return rms_norm(self.precision, f"{name}_norm", axis=axes.HEAD_DIM)(y)

    query = normed("query", split("query")(x))  # b n k d
    if slots is not None and context is not None and self._has_read():
      key, value = (self.get_variable(CACHE, n) for n in ("keys", "values"))
    else:
      source = x if context is None else context
      key = normed("key", split("key")(source))  # b m k d
      value = split("value")(source)  # b m k d
      if angles is not None:
        query, key = rotate(query, angles), rotate(key, angles)
      if slots is not None:
        at = slots if context is None else None
        key = self._keep("keys", key, at, mask.shape[-1])
        value = self._keep("values", value, at, mask.shape[-1])
    if self.flash:
      out = flash_lib.attention(query, key, value, mask)
    else:
      out = dot_product_attention(query, key, value, mask, self.precision, bias)
    return Projection(
      (embed_dim,),
      (axes.HEADS, axes.HEAD_DIM, axes.EMBED),
      num_in=2,
      use_bias=self.use_bias,
      precision=self.precision,
      name="out",
    )(out)

  def _has_read(self) -> bool:
    return self.has_variable(CACHE, "keys")

  def _keep(self, name, new, slots, size):
    """Writes keys or values into the cache, all or some; returns all of it."""
    if slots is not None:
      shape = (new.shape[0], size, *new.shape[2:])
      old = self.variable(CACHE, name, jnp.zeros, shape, new.dtype).value
      new = jax.vmap(lambda y, i, rows: y.at[i].set(rows))(old, slots, new)
    names = (axes.ACT_BATCH, axes.ACT_SEQ, axes.ACT_HEADS, None)
    new = place(new, names)
    self.put_variable(CACHE, name, new)
    return new
