"""Texts that tell left from right: their pictures must not be mirrored."""

import functools
import re
from collections.abc import Mapping
from typing import Any

# Beginnings of words. Scripts without spaces between words are searched
# anywhere. A word too many costs a mirrored picture, one too few a wrong text.
WORDS = (
  *("left", "right", "clockwise", "counterclockwise", "anticlockwise"),
  *("links", "linke", "recht"),  # German; Dutch in part.
  *("gauche", "droit"),  # French.
  *("izquierd", "derech"),  # Spanish.
  *("sinistr", "destra", "destro"),  # Italian.
  *("esquerd", "direit"),  # Portuguese.
  *("лев", "прав", "слева", "справа", "влево", "вправо"),  # Russian.
  *("左", "右"),  # Chinese, Japanese.
  *("왼", "오른"),  # Korean.
)
NO_SPACES = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff]")


@functools.lru_cache(maxsize=32)
def _pattern(words: tuple[str, ...]) -> re.Pattern[str]:
  # Before a word stands anything but a letter or a digit; "_" may.
  starts = [
    re.escape(word)
    if NO_SPACES.search(word)
    else rf"(?<![^\W_]){re.escape(word)}"
    for word in words
  ]
  return re.compile("|".join(starts), re.IGNORECASE)


def tells_sides(example: Mapping[str, Any], words: tuple[str, ...]) -> bool:
  """Whether any text of an example, names of classes too, has such a word."""
  if not words:
    return False
  found = _pattern(words).search
  return any(
    found(text) for value in example.values() for text in _texts(value)
  )


def _texts(value: Any) -> tuple[str, ...]:
  if isinstance(value, str):
    return (value,)
  if isinstance(value, (tuple, list)):
    return tuple(item for item in value if isinstance(item, str))
  return ()
