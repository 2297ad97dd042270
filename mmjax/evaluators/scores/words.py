"""Cuts texts into the words that scores compare."""

import re

# Chinese and Japanese don't write spaces: each character is a word.
_CHARACTER = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_CHARACTER}]|[^\W{_CHARACTER}]+(?:['’-][^\W]+)*")


def words(text: str) -> list[str]:
  """The words of a text in lower case, without punctuation.

  Hyphens and apostrophes inside of a word stay. COCO's captions are cut
  likewise by the Penn Treebank's rules, which part "it's" into two.
  """
  return _WORD.findall(text.lower())
