"""Training of a visual tokenizer on what a teacher sees."""

import dataclasses

import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.objectives import codebook_health, losses

EPSILON = 1e-6  # Of lengths.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerDistillation:
  """Codes from which a teacher's features of the patches can be told.

  loss = mean over patches of 1 - cos(o, t) + commitment_weight |z - e|^2, of
  what the tokenizer decodes (o) and the teacher's encoder makes (t) of the
  whole picture; the codebook follows by itself. Source: BEiT v2 (Peng et al.
  2022, arXiv:2208.06366), eq. 2, with its moving-average codebook in place of
  the second term. The tokenizer is a `vq_kd`, the teacher that of
  `config.model.teacher`.
  """

  image: str = "image"  # Field: pictures, or clips.
  commitment_weight: float = 1.0
  min_usage: float = 0.0  # See `TokenizerTraining`.
  after_steps: int = 200

  def __post_init__(self):
    codebook_health.check_floor(self.min_usage)

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng
    result = apply("reconstruct", self.image)
    target = apply("encode", self.image, by="teacher").content  # b n d
    self._check(result.features, target)
    mask = losses.counted(batch, (self.image,), target)
    # Before the division, where a NaN would reach the gradient.
    made, target = (
      jnp.where(mask[:, None, None], x.astype(jnp.float32), 1.0)
      for x in (result.features, target)
    )
    distance = jnp.mean(1.0 - _cosine(made, target), axis=1)  # b
    commitment, metrics = codebook_health.measure(
      result, mask, apply("codebook_size", self.image), train=train
    )
    values = distance + self.commitment_weight * commitment
    metrics["cosine_distance"] = losses.masked_sum(distance, mask)
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
    """None: the mean of what a teacher makes is no direction like others."""
    del info, batch_size
    return None

  def _check(self, made, target):
    if made is None:
      raise errors.UserError(
        "tokenizer_distillation needs a visual tokenizer that decodes to "
        "features: set config.model.visual_tokenizer.name to 'vq_kd'."
      )
    if made.shape[1:] != target.shape[1:]:
      n, d = made.shape[1:]
      raise errors.UserError(
        f"The visual tokenizer decodes {n} codes to {d} channels, the teacher "
        f"has {target.shape[1]} tokens of {target.shape[2]}. Set patch_size "
        "and feature_dim of the tokenizer to those of the teacher."
      )


def _cosine(a, b):
  """Cosines of the last axis; of a vector of length 0, 0."""
  dot = jnp.sum(a * b, axis=-1)
  squared = jnp.sum(a * a, axis=-1) * jnp.sum(b * b, axis=-1)
  return dot / jnp.sqrt(squared + EPSILON**2)
