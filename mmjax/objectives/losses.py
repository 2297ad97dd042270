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


def binary_cross_entropy(
  logits: Float[Array, "*b"], labels: Float[Array, "*b"]
) -> Float[Array, "*b"]:
  """Of independent yes or no questions, nats; labels are 0..1."""
  logits, labels = logits.astype(jnp.float32), labels.astype(jnp.float32)
  return jax.nn.softplus(logits) - logits * labels


def masked_sum(values: Float[Array, "*b"], mask: Bool[Array, "*b"]) -> LossTerm:
  """Sums the values that count, and counts them.

  Values that don't count may be anything, NaN too: nothing of them reaches
  the sum or its gradient.
  """
  mask = jnp.broadcast_to(mask, values.shape)
  total = jnp.sum(jnp.where(mask, values, 0.0))
  return LossTerm(total, jnp.sum(mask, dtype=jnp.float32))


def layer_normalized(
  x: Float[Array, "*b d"], epsilon: float = 1e-6
) -> Float[Array, "*b d"]:
  """Mean 0 and variance 1 over the channels, without parameters."""
  x = x.astype(jnp.float32)
  x = x - jnp.mean(x, axis=-1, keepdims=True)
  variance = jnp.mean(jnp.square(x), axis=-1, keepdims=True)
  return x * jax.lax.rsqrt(variance + epsilon)


def squared_error(
  predicted: Float[Array, "*b d"], target: Float[Array, "*b d"]
) -> Float[Array, "*b"]:
  """The mean over channels of squared differences."""
  difference = predicted.astype(jnp.float32) - target.astype(jnp.float32)
  return jnp.mean(jnp.square(difference), axis=-1)


def smooth_l1(
  predicted: Float[Array, "*b d"], target: Float[Array, "*b d"], beta: float
) -> Float[Array, "*b"]:
  """The mean over channels: squares up to `beta`, then straight lines.

  Source: Girshick 2015 (arXiv:1504.08083), eq. 3.
  """
  distance = jnp.abs(predicted.astype(jnp.float32) - target.astype(jnp.float32))
  near = 0.5 * jnp.square(distance) / beta
  values = jnp.where(distance < beta, near, distance - 0.5 * beta)
  return jnp.mean(values, axis=-1)


def cosine_distance(
  predicted: Float[Array, "*b d"], target: Float[Array, "*b d"]
) -> Float[Array, "*b"]:
  """1 - cosine; 1 for a prediction or a target of length 0.

  The length of a prediction counts as if its channels had 0.01 more of mean
  square: with a head that starts at zero, the gradient starts finite.
  """
  predicted, target = (x.astype(jnp.float32) for x in (predicted, target))
  soft = jnp.mean(jnp.square(predicted), axis=-1) + 0.01
  size = jnp.mean(jnp.square(target), axis=-1) + 1e-12
  product = jnp.mean(predicted * target, axis=-1)
  return 1.0 - product * jax.lax.rsqrt(soft * size)


def accuracy(
  logits: Float[Array, "*b v"],
  labels: Int[Array, "*b"],
  mask: Bool[Array, "*b"],
) -> LossTerm:
  """Fraction of the counted labels that have the highest logit."""
  right = jnp.argmax(logits, axis=-1) == labels
  return masked_sum(right.astype(jnp.float32), mask)


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
