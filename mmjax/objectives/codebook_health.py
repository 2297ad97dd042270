"""The health of a codebook, and when training a tokenizer has no point."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm, Metrics
from mmjax.objectives import losses


def measure(
  result, mask: Bool[Array, " b"], num_codes: int, *, train: bool
) -> tuple[Float[Array, " b"], Metrics]:
  """The commitment loss of each example, and what to log of the codes.

  Args:
    result: what the model reconstructs: codes, commitment, restarted.
    mask: True for the examples that count.
    num_codes: of the codebook.
    train: see `Objective`.
  """
  commitment = jnp.mean(result.commitment, axis=1)  # b
  return commitment, {
    "commitment": losses.masked_sum(commitment, mask),
    "restarted_codes": losses.constant(result.restarted),
    **health(result.codes, mask, num_codes, train=train),
  }


def health(codes, mask, num_codes, *, train: bool):
  """Share of the codebook that this batch uses, and its perplexity.

  In training also `codes`, how often each is used: `train.metrics.Meter` adds
  these up and says what share was used between two rows of the log, which is
  more than any batch uses.

  Args:
    codes: b n.
    mask: b, True for the examples that count.
    num_codes: of the codebook.
    train: see `Objective`.
  """
  weights = jnp.broadcast_to(mask[:, None], codes.shape)
  counts = (
    jnp.zeros(num_codes, jnp.float32).at[codes].add(weights.astype(jnp.float32))
  )
  probs = counts / jnp.maximum(jnp.sum(counts), 1.0)
  entropy = -jnp.sum(jax.scipy.special.xlogy(probs, probs))
  metrics = {
    "batch_usage": LossTerm(
      jnp.sum(counts > 0).astype(jnp.float32), jnp.float32(num_codes)
    ),
    "perplexity": losses.constant(jnp.exp(entropy)),
  }
  if train:
    metrics["codes"] = LossTerm(counts, jnp.ones((), jnp.float32))
  return metrics


def check_floor(min_usage: float) -> None:
  """Raises `UserError` if a usage floor is no share."""
  if not 0.0 <= min_usage <= 1.0:
    raise errors.UserError(f"min_usage={min_usage}, expected [0, 1].")


def collapsed(row, min_usage: float, after_steps: int) -> str | None:
  """Says that too few codes are used, and what to try.

  Args:
    row: an objective's numbers of a row of the log, and `step`.
    min_usage: floor of `codes_usage`.
    after_steps: earlier rows say nothing.
  """
  usage = row.get("codes_usage", 1.0)
  if row["step"] < after_steps or usage >= min_usage:
    return None
  return (
    f"only {usage:.1%} of the codes are used, the floor is min_usage="
    f"{min_usage:g} (perplexity {row.get('codes_perplexity', 0.0):.1f}). Try a "
    "smaller codebook or code_dim, a lower learning rate with more "
    "warmup_steps, a smaller restart_after, or the tokenizer 'fsq', which has "
    "no codebook to collapse."
  )
