"""Tokens -> text as it comes, up to a stop string; on the host."""

from collections.abc import Callable, Sequence

# What stands for bytes of a character that is not whole yet.
REPLACEMENT = "\ufffd"


class TextStream:
  """Gives out the text of tokens in pieces, each as soon as it is certain.

  What may be the start of a stop string, or a part of a character, is held
  back until the next tokens decide.

  Args:
    decode: ids -> text.
    stop: the text ends before the first of these.
  """

  def __init__(
    self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = ()
  ):
    self._decode = decode
    self._stop = tuple(stop)
    self._given = ""
    self.stopped = False  # A stop string came.

  def push(self, ids: Sequence[int], *, last: bool = False) -> str:
    """The next piece, which may be empty.

    Args:
      ids: all tokens so far, not only the new ones.
      last: nothing follows, so nothing is held back.
    """
    if self.stopped:
      return ""
    text = self._decode(ids)
    found = [i for i in map(text.find, self._stop) if i >= 0]
    if found:
      self.stopped = True
      text = text[: min(found)]
    elif not last:
      text = text.rstrip(REPLACEMENT)
      text = text[: len(text) - self._unsure(text)]
    piece = text[len(self._given) :]
    self._given += piece
    return piece

  @property
  def text(self) -> str:
    """All pieces so far."""
    return self._given

  def _unsure(self, text: str) -> int:
    """Characters at the end that a stop string may begin with."""
    longest = max((len(s) for s in self._stop), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
      if any(s.startswith(text[-size:]) for s in self._stop):
        return size
    return 0
