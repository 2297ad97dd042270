"""Captioning: a text from pictures, clips, sounds, or another text."""

import dataclasses
import math

from mmjax.core import errors
from mmjax.core.batch import FieldSpec, modality_fields
from mmjax.core.interfaces import Decoding
from mmjax.objectives import next_token


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning:
  """Predicts each token of a text from those before it and what is given.

  Source: CoCa (Yu et al. 2022, arXiv:2205.01917), eq. 2, and the decoder of
  BLIP (Li et al. 2022, arXiv:2201.12086), 3.2: a causal decoder of the text's
  name reads the given modalities. With `parallel`, the texts that the data
  picked are predicted all at once, from no token of theirs, the others one by
  one (CapPa, Tschannen et al. 2023, arXiv:2306.07915, 3). An example that
  lacks all that is given is predicted from its own words.

  Raises:
    UserError: nothing is given.
  """

  text: str = "text"  # Field to predict, and name of the decoder.
  given: tuple[str, ...] = ("image",)  # Modalities that it looks at.
  view: str = "clean"  # Of these; "masked" shares masked prediction's pass.
  fused: bool = False  # It looks at them after their fusion.
  parallel: bool = False  # Data: `data.text.parallel`.
  head: str = "lm"
  tied: bool = False  # The logits' matrix is the decoder's token table.

  def __post_init__(self):
    if not self.given:
      raise errors.UserError(
        "given=(), expected at least one modality; a text alone is predicted "
        "by 'causal_lm'."
      )

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    mode = "parallel" if self.parallel else "causal"
    given = tuple(sorted(self.given))
    decoded = apply(
      "decode", self.text, given, mode, self.fused, view=self.view
    )
    labels, counts = next_token.targets(batch, self.text)
    said = next_token.said(apply, self.head, decoded, labels)
    loss, metrics = next_token.compare(said, counts)
    if self.parallel:
      at_once = batch[f"{self.text}_parallel"][:, None]
      for name, kind in (("parallel", at_once), ("causal", ~at_once)):
        part, _ = next_token.compare(said, counts & kind)
        metrics[f"{name}_loss"] = part
    return loss, metrics

  def fields(self, info):
    del info
    specs = {
      **modality_fields(*self.given),
      **next_token.text_fields(self.text),
    }
    if self.parallel:
      specs[f"{self.text}_parallel"] = FieldSpec(
        (), "bool", "", "True = predicted all at once"
      )
    return specs

  def heads(self, info):
    return {self.head: next_token.head_config(info, self.text, tied=self.tied)}

  @property
  def decoding(self) -> Decoding:
    """From what is given, word by word, whether or not it learned both."""
    given = tuple(sorted(self.given))
    return Decoding(self.text, given, fused=self.fused, head=self.head)

  def chance(self, info, batch_size):
    """Ln V: every token of the vocabulary is as likely."""
    del batch_size
    return math.log(info.vocab_size)
