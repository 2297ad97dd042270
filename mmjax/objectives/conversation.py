"""Conversations: what an assistant says, given all before it."""

import dataclasses
import math

from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.core.interfaces import Decoding
from mmjax.objectives import next_token

MODE = "conversation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
  """Predicts each token of the assistant's turns from all before it.

  Source: LLaVA (Liu et al. 2023, arXiv:2304.08485), eq. 3: pictures stand
  within the text, what a user says is read and not predicted. A row may hold
  several conversations; a token sees those of its own. `data.conversation`
  makes the fields, and the decoder reads pictures with context="inline".
  """

  text: str = "text"  # Field with the conversations, and name of the decoder.
  given: tuple[str, ...] = ("images",)  # Or () for texts alone.
  head: str = "lm"
  tied: bool = False  # The logits' matrix is the decoder's token table.

  @property
  def decoding(self) -> Decoding:
    return Decoding(self.text, tuple(sorted(self.given)), MODE, head=self.head)

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    given = tuple(sorted(self.given))
    decoded = apply("decode", self.text, given, MODE)
    labels, counts = next_token.targets(batch, self.text)
    said = next_token.said(apply, self.head, decoded, labels)
    counts = counts & batch[f"{self.text}_answer"][:, 1:]
    return next_token.compare(said, counts)

  def fields(self, info):
    del info
    each = FieldSpec((None,), "int32", "t")
    specs = {
      **modality_fields(*self.given),
      **next_token.text_fields(self.text),
      f"{self.text}_answer": FieldSpec((None,), "bool", "t", "to be said"),
      f"{self.text}_segments": each,
      f"{self.text}_positions": each,
    }
    if self.given:
      specs[f"{self.text}_places"] = each
    return specs

  def heads(self, info):
    return {self.head: next_token.head_config(info, self.text, tied=self.tied)}

  def chance(self, info, batch_size):
    """Ln V: every token of the vocabulary is as likely."""
    del batch_size
    return math.log(info.vocab_size)
