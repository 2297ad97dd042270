"""Masked language modelling."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedLM:
  """Predicts the hidden tokens of a text, alone or given other modalities.

  Source: Devlin et al. 2019 (arXiv:1810.04805), 3.1; which tokens are hidden,
  and whether each is replaced by the mask, a random token or itself, is drawn
  with the data. Logits are computed at hidden positions only.
  """

  text: str = "text"  # Field to predict.
  given: tuple[str, ...] = ("image",)  # Modalities it may look at.
  head: str = "mlm"
  tied: bool = False  # The logits' matrix is the encoder's token table.
  head_activation: str = "gelu_tanh"  # See `models.heads.TokenHead`.
  head_norm_epsilon: float = 1e-6

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    hidden = batch[f"{self.text}_hidden"]
    if self.given:
      modalities = tuple(sorted({self.text, *self.given}))
      sequence = apply("fuse", modalities, view="masked")[self.text]
    else:
      sequence = apply("encode", self.text, view="masked")
    logits = apply("head", self.head, sequence.take(hidden))  # b k v
    labels = jnp.take_along_axis(batch[self.text], hidden, axis=1)  # b k
    mask = batch[f"{self.text}_hidden_mask"]
    mask = mask & losses.counted(batch, (self.text,), mask)[:, None]
    loss = losses.masked_sum(losses.cross_entropy(logits, labels), mask)
    return loss, {"accuracy": losses.accuracy(logits, labels, mask)}

  def fields(self, info):
    del info
    text = self.text
    return {
      **modality_fields(text, *self.given),
      f"{text}_masked": FieldSpec((None,), "int32", "t", "corrupted ids"),
      f"{text}_hidden": FieldSpec((None,), "int32", "k", "positions"),
      f"{text}_hidden_mask": FieldSpec((None,), "bool", "k", "real ones"),
    }

  def heads(self, info):
    head: dict[str, Any] = {}
    if self.tied:
      head = {"name": "tied_token", "tied_to": self.text}
    else:
      head = {"name": "token"}
    if self.head_activation != "gelu_tanh":
      head["activation"] = self.head_activation
    if self.head_norm_epsilon != 1e-6:
      head["norm_epsilon"] = self.head_norm_epsilon
    return {self.head: {**head, "num_classes": info.vocab_size}}

  def chance(self, info, batch_size):
    """Ln V: every token of the vocabulary is as likely."""
    del batch_size
    return math.log(info.vocab_size)
