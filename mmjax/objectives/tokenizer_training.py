"""Training of the visual tokenizer."""

import dataclasses

import jax
import jax.numpy as jnp

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

  image: str = "image"
  commitment_weight: float = 0.25
  l1_weight: float = 0.0

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    image = batch[self.image].astype(jnp.float32) / 255.0  # b h w c
    result = apply("reconstruct", self.image)
    error = 2.0 * (result.image - image)  # On the scale -1..1.
    squared = jnp.mean(error**2, axis=(1, 2, 3))  # b
    absolute = jnp.mean(jnp.abs(error), axis=(1, 2, 3))  # b
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
    metrics.update(self._health(apply, result.codes, mask))
    return losses.masked_sum(values, mask), metrics

  def _health(self, apply, codes, mask):
    """Share of the codebook that this batch uses, and its perplexity."""
    num_codes = apply("codebook_size")
    weights = jnp.broadcast_to(mask[:, None], codes.shape)
    counts = (
      jnp.zeros(num_codes, jnp.float32)
      .at[codes]
      .add(weights.astype(jnp.float32))
    )
    probs = counts / jnp.maximum(jnp.sum(counts), 1.0)
    entropy = -jnp.sum(jax.scipy.special.xlogy(probs, probs))
    return {
      "batch_usage": LossTerm(
        jnp.sum(counts > 0).astype(jnp.float32), jnp.float32(num_codes)
      ),
      "perplexity": losses.constant(jnp.exp(entropy)),
    }

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
