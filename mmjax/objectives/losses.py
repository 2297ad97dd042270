"""Pure functions from logits and targets to `LossTerm`, all in float32."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.core.interfaces import LossTerm


def cross_entropy(
  logits: Float[Array, "*b v"], labels: Int[Array, "*b"]
) -> Float[Array, "*b"]:
  """Negative log-likelihood of `labels`, nats, one value per label."""
  logits = logits.astype(jnp.float32)
  picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits, axis=-1) - picked


def masked_sum(values: Float[Array, "*b"], mask: Bool[Array, "*b"]) -> LossTerm:
  """Sums the values that count, and counts them.

  Values that don't count may be anything, NaN too: nothing of them reaches
  the sum or its gradient.
  """
  mask = jnp.broadcast_to(mask, values.shape)
  total = jnp.sum(jnp.where(mask, values, 0.0))
  return LossTerm(total, jnp.sum(mask, dtype=jnp.float32))


def accuracy(
  logits: Float[Array, "*b v"],
  labels: Int[Array, "*b"],
  mask: Bool[Array, "*b"],
) -> LossTerm:
  """Fraction of the counted labels that have the highest logit."""
  right = jnp.argmax(logits, axis=-1) == labels
  return masked_sum(right.astype(jnp.float32), mask)


def info_nce(
  a: Float[Array, "b s"],
  b: Float[Array, "b s"],
  scale: Float[Array, ""],
  mask: Bool[Array, " b"],
) -> LossTerm:
  """Symmetric InfoNCE over all pairs of the global batch.

  Row i of `a` belongs to row i of `b`; every other counted row is a
  negative. Source: van den Oord et al. 2018 (arXiv:1807.03748), eq. 4, in
  both directions as in Radford et al. 2021 (arXiv:2103.00020), figure 3.
  """
  # Before the product, where a NaN would reach all rows' gradients.
  a, b = (jnp.where(mask[:, None], x.astype(jnp.float32), 0.0) for x in (a, b))
  logits = scale * (a @ b.T)  # b b
  logits = jnp.where(mask[:, None] & mask[None, :], logits, -1e30)
  own = jnp.diagonal(logits)
  a_to_b = jax.nn.logsumexp(logits, axis=1) - own
  b_to_a = jax.nn.logsumexp(logits, axis=0) - own
  return masked_sum(0.5 * (a_to_b + b_to_a), mask)


def constant(value: Float[Array, ""]) -> LossTerm:
  """A number to log, as a mean over one thing."""
  return LossTerm(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def counted(batch, fields: Sequence[str], like: Array) -> Bool[Array, " b"]:
  """True for the examples that are real and have all of these fields.

  Args:
    batch: may have `example_mask` and `<field>_present`.
    fields: without which an example says nothing about a loss.
    like: any array of the batch, for its size.
  """
  mask = jnp.ones(like.shape[0], bool)
  for name in ("example_mask", *(f"{field}_present" for field in fields)):
    if name in batch:
      mask = mask & batch[name]
  return mask
