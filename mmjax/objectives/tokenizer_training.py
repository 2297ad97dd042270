"""Training of the visual tokenizer on pixels."""

import dataclasses

import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.objectives import codebook_health, losses


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
    codebook_health.check_floor(self.min_usage)

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
    mask = losses.counted(batch, (self.image,), squared)
    commitment, metrics = codebook_health.measure(
      result, mask, apply("codebook_size", self.image), train=train
    )
    values = (
      squared + self.l1_weight * absolute + self.commitment_weight * commitment
    )
    metrics["squared_error"] = losses.masked_sum(squared, mask)
    return losses.masked_sum(values, mask), metrics

  def check_metrics(self, row):
    """What is wrong with the codebook, if anything."""
    return codebook_health.collapsed(row, self.min_usage, self.after_steps)

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
