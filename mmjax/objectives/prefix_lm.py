"""Prefix language modelling."""

import dataclasses
import math

import jax.numpy as jnp

from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.core.interfaces import Decoding
from mmjax.objectives import next_token


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrefixLM:
  """Predicts the rest of a text from its beginning and what is given.

  Source: SimVLM (Wang et al. 2022, arXiv:2108.10904), eq. 3: the prefix sees
  all of itself, the rest is causal, and only the rest is predicted. How long
  the prefix is, is drawn with the data. With a decoder that reads its context
  as a "prefix", the given modalities stand before the text in one stack, as
  there and in PaliGemma; with "cross_attention" only the text's beginning does.
  """

  text: str = "text"  # Field to predict, and name of the decoder.
  given: tuple[str, ...] = ("image",)  # Modalities that it looks at, or none.
  head: str = "lm"
  tied: bool = False  # The logits' matrix is the decoder's token table.

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    given = tuple(sorted(self.given))
    decoded = apply("decode", self.text, given, "prefix")
    labels, counts = next_token.targets(batch, self.text)
    said = next_token.said(apply, self.head, decoded, labels)
    index = jnp.arange(1, labels.shape[1] + 1)[None]  # Of each label.
    counts = counts & (index >= batch[f"{self.text}_prefix"][:, None])
    return next_token.compare(said, counts)

  def fields(self, info):
    del info
    return {
      **modality_fields(*self.given),
      **next_token.text_fields(self.text),
      f"{self.text}_prefix": FieldSpec((), "int32", "", "tokens of the prefix"),
    }

  def heads(self, info):
    return {self.head: next_token.head_config(info, self.text, tied=self.tied)}

  @property
  def decoding(self) -> Decoding:
    """The prompt is the prefix: its tokens see each other."""
    given = tuple(sorted(self.given))
    return Decoding(self.text, given, "prefix", head=self.head)

  def chance(self, info, batch_size):
    """Ln V: every token of the vocabulary is as likely."""
    del batch_size
    return math.log(info.vocab_size)
