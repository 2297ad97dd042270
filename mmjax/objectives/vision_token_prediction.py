"""Vision token prediction (masked image modelling on discrete codes)."""

import dataclasses
import math

import jax.numpy as jnp

from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionTokenPrediction:
  """Predicts the visual tokenizer's codes of hidden patches.

  Source: BEiT (Bao et al. 2022, arXiv:2106.08254), eq. 1; given text as in
  BEiT-3 and FLAVA. The loss is cross-entropy at hidden patches only; the
  tokenizer is frozen and sees the whole picture.
  """

  image: str = "image"  # Field to predict.
  given: tuple[str, ...] = ("text",)  # Modalities it may look at.
  head: str = "vtp"

  needs_frozen = ("visual_tokenizer",)  # Parts that must not be trained.

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    hidden = batch[f"{self.image}_hidden"]
    if self.given:
      modalities = tuple(sorted({self.image, *self.given}))
      sequence = apply("fuse", modalities, view="masked")[self.image]
    else:
      sequence = apply("encode", self.image, view="masked")
    logits = apply("head", self.head, sequence.take(hidden))  # b k v
    codes = apply("codes", self.image)  # b n
    labels = jnp.take_along_axis(codes, hidden, axis=1)  # b k
    mask = losses.counted(batch, (self.image,), hidden)[:, None]
    mask = jnp.broadcast_to(mask, labels.shape)
    loss = losses.masked_sum(losses.cross_entropy(logits, labels), mask)
    return loss, {"accuracy": losses.accuracy(logits, labels, mask)}

  def fields(self, info):
    del info
    return {
      **modality_fields(self.image, *self.given),
      f"{self.image}_hidden": FieldSpec((None,), "int32", "k", "patches"),
    }

  def heads(self, info):
    return {self.head: {"name": "token", "num_classes": info.codebook_size}}

  def chance(self, info, batch_size):
    """Ln K: every code of the codebook is as likely."""
    del batch_size
    return math.log(info.codebook_size)
