"""Causal language modelling."""

import dataclasses
import math

from mmjax.core import errors
from mmjax.core.interfaces import Decoding
from mmjax.objectives import next_token

PARTS = ("decoder", "encoder")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalLM:
  """Predicts each token of a text from those before it, and nothing else.

  Source: GPT (Radford et al. 2018), eq. 1; the text decoder without a context,
  or a text encoder that is causal.

  Raises:
    UserError: an unknown part of the model.
  """

  text: str = "text"  # Field to predict, and name of the decoder or encoder.
  part: str = "decoder"  # Or "encoder".
  head: str = "lm"
  tied: bool = False  # The logits' matrix is the token table of that part.

  def __post_init__(self):
    if self.part not in PARTS:
      raise errors.unknown("part that reads a text", self.part, PARTS)

  @property
  def needs_causal(self) -> tuple[str, ...]:
    """Encoders of which a token must not see those after it."""
    return (self.text,) if self.part == "encoder" else ()

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    method = "decode" if self.part == "decoder" else "encode"
    labels, counts = next_token.targets(batch, self.text)
    read = apply(method, self.text)
    return next_token.compare(
      next_token.said(apply, self.head, read, labels), counts
    )

  def fields(self, info):
    del info
    return next_token.text_fields(self.text)

  def heads(self, info):
    config = next_token.head_config(
      info, self.text, tied=self.tied, tied_in=f"{self.part}s"
    )
    return {self.head: config}

  @property
  def decoding(self) -> Decoding | None:
    """By the decoder; an encoder keeps nothing of what it has read."""
    if self.part == "encoder":
      return None
    return Decoding(self.text, head=self.head)

  def chance(self, info, batch_size):
    """Ln V: every token of the vocabulary is as likely."""
    del batch_size
    return math.log(info.vocab_size)
