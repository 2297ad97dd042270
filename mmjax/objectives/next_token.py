"""Prediction of each token of a text from those before it.

A text stands in the batch as `bos w1 w2 ... eos pad pad`. What a model says at
position i is compared with token i + 1: bos is never predicted, eos is, and
what is said at the last position is not used.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.core.batch import MODALITIES, Batch, FieldSpec
from mmjax.core.interfaces import Apply, LossTerm, Metrics, ModelInfo
from mmjax.core.sequence import Sequence
from mmjax.objectives import losses


def text_fields(text: str) -> dict[str, FieldSpec]:
  """The field of a text to predict, which need not be a modality."""
  return {text: MODALITIES["text"]}


def targets(
  batch: Batch, text: str
) -> tuple[Int[Array, "b u"], Bool[Array, "b u"]]:
  """The tokens to predict, u = t - 1, and which of them count."""
  labels = batch[text][:, 1:]
  counts = jnp.ones(labels.shape, bool)
  if f"{text}_mask" in batch:
    counts = batch[f"{text}_mask"][:, 1:]
  if f"{text}_positions" in batch:  # No text says the bos of the next.
    counts = counts & (batch[f"{text}_positions"][:, 1:] > 0)
  return labels, counts & losses.counted(batch, (text,), labels)[:, None]


class Said(NamedTuple):
  """Of each token: how far off what is said of it is, and if it is right."""

  nats: Float[Array, "b u"]
  right: Float[Array, "b u"]


def said(
  apply: Apply, head: str, sequence: Sequence, labels: Int[Array, "b u"]
) -> Said:
  """Of the next token, at all positions but the last."""
  return apply("judge", head, sequence.content[:, :-1], labels, _judge)


def _judge(logits, labels):
  right = jnp.argmax(logits, axis=-1) == labels
  nats = losses.cross_entropy(logits, labels)
  return Said(nats, right.astype(jnp.float32))


def compare(said: Said, counts: Bool[Array, "b u"]) -> tuple[LossTerm, Metrics]:
  """Cross-entropy and accuracy of the tokens that count."""
  right = losses.masked_sum(said.right, counts)
  return losses.masked_sum(said.nats, counts), {"accuracy": right}


def head_config(
  info: ModelInfo, text: str, *, tied: bool, tied_in: str = "decoders"
) -> Mapping[str, Any]:
  """One projection to the vocabulary, or the token table of a part."""
  if not tied:
    return {"name": "linear", "num_classes": info.vocab_size}
  return {
    "name": "tied_token",
    "num_classes": info.vocab_size,
    "tied_to": text,
    "tied_in": tied_in,
    "transform": False,
  }
