"""Classification of one modality."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Cross-entropy of one label per example, on pooled features.

  Raises:
    UserError: smoothing outside [0, 1).
  """

  num_classes: int
  modality: str = "image"
  label: str = "label"  # Field with the class index.
  head: str = "label"
  smoothing: float = 0.0  # Share of the target spread over all classes.

  def __post_init__(self):
    if not 0.0 <= self.smoothing < 1.0:
      raise errors.UserError(
        f"Classification.smoothing={self.smoothing}, expected [0, 1)."
      )

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng
    logits = apply("head", self.head, apply("pool", self.modality))  # b v
    labels = batch[self.label]
    mask = losses.counted(batch, (self.modality, self.label), labels)
    values = losses.cross_entropy(logits, labels)
    if train and self.smoothing:
      # Cross-entropy to the uniform distribution over the classes.
      uniform = -jnp.mean(
        jax.nn.log_softmax(logits.astype(jnp.float32)), axis=1
      )
      values = (1 - self.smoothing) * values + self.smoothing * uniform
    return losses.masked_sum(values, mask), {
      "accuracy": losses.accuracy(logits, labels, mask)
    }

  def fields(self, info):
    del info
    return {
      **modality_fields(self.modality),
      self.label: FieldSpec((), "int32", "", "class index"),
    }

  def heads(self, info):
    del info
    return {self.head: {"name": "linear", "num_classes": self.num_classes}}

  def chance(self, info, batch_size):
    """Ln C: every class is as likely."""
    del info, batch_size
    return math.log(self.num_classes)
