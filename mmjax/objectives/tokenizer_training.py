"""Training of the visual tokenizer, and the health of its codebook."""

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerTraining:
  """Reconstruction plus commitment; the codebook follows by itself.

  loss = |x - x'|^2 + l1_weight |x - x'| + commitment_weight |z - e|^2, the
  first two as means over pixel values in -1..1, the last over patches.
  Source: van den Oord et al. 2017 (arXiv:1711.00937), eq. 3, with the
  moving-average codebook of its appendix A.1 in place of the second term.
  """

  image: str = "image"  # Field: pictures, or clips.
  commitment_weight: float = 0.25
  l1_weight: float = 0.0
  # The run stops if, between two rows of the log, less than this share of the
  # codes was used at all; from step `after_steps` on. 0 = never. A row should
  # see many more tokens than there are codes.
  min_usage: float = 0.0
  after_steps: int = 200

  def __post_init__(self):
    check_floor(self.min_usage)

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng
    image = batch[self.image].astype(jnp.float32) / 255.0  # b h w c
    result = apply("reconstruct", self.image)
    if result.image is None:
      raise errors.UserError(
        "tokenizer_training needs a visual tokenizer that decodes to pixels; "
        "for one that decodes to features use tokenizer_distillation."
      )
    error = 2.0 * (result.image - image)  # On the scale -1..1.
    pixels = tuple(range(1, error.ndim))
    squared = jnp.mean(error**2, axis=pixels)  # b
    absolute = jnp.mean(jnp.abs(error), axis=pixels)  # b
    commitment = jnp.mean(result.commitment, axis=1)  # b
    values = (
      squared + self.l1_weight * absolute + self.commitment_weight * commitment
    )
    mask = losses.counted(batch, (self.image,), values)
    metrics = {
      "squared_error": losses.masked_sum(squared, mask),
      "commitment": losses.masked_sum(commitment, mask),
      "restarted_codes": losses.constant(result.restarted),
    }
    num_codes = apply("codebook_size", self.image)
    metrics.update(health(result.codes, mask, num_codes, train=train))
    return losses.masked_sum(values, mask), metrics

  def check_metrics(self, row):
    """What is wrong with the codebook, if anything."""
    return collapsed(row, self.min_usage, self.after_steps)

  def fields(self, info):
    del info
    return modality_fields(self.image)

  def heads(self, info):
    del info
    return {}

  def chance(self, info, batch_size):
    """None: a squared error has no chance level."""
    del info, batch_size
    return None


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
