"""How well a tokenizer fits texts: bytes per token, what it does not know."""

import numpy as np

from mmjax.data.tokenizer import TextTokenizer


class Fit:
  """Counts over texts, one at a time."""

  def __init__(self):
    self.bytes = self.tokens = self.unknown = self.single = 0

  def add(self, text: str, tokenizer: TextTokenizer) -> int:
    """Counts a text; returns its tokens, without bos and eos."""
    ids = tokenizer.pieces(text)
    self.bytes += len(text.encode("utf-8", "replace"))
    self.tokens += len(ids)
    self.unknown += ids.count(tokenizer.unknown_id)
    self.single += int(np.count_nonzero(tokenizer.is_byte[ids])) if ids else 0
    return len(ids)

  def describe(self) -> str:
    """In words, e.g. "3.10 bytes per token, 0 % unknown, 1.2 % ..."."""
    tokens = max(self.tokens, 1)
    return (
      f"{self.bytes / tokens:.2f} bytes per token, "
      f"{100 * self.unknown / tokens:.2g} % unknown, "
      f"{100 * self.single / tokens:.2g} % pieces of characters"
    )
