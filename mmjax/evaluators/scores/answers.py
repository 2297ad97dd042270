"""Answers to questions: how they are made alike, and what one is worth.

Source: the evaluation of VQA (Antol et al. 2015, arXiv:1505.00468, 3), and its
rules as https://visualqa.org/evaluation.html lists them.
"""

import re
from collections.abc import Sequence

NUMBERS = {
  "none": "0",
  **{
    name: str(i)
    for i, name in enumerate(
      "zero one two three four five six seven eight nine ten".split()
    )
  },
}
ARTICLES = frozenset(("a", "an", "the"))
# Where the apostrophe is often left out and no other word comes of it.
_SHORT = """
  ain't aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't
  mightn't mustn't needn't oughtn't shan't shouldn't wasn't weren't won't
  wouldn't could've might've must've should've they've we've what've where've
  who've would've you've i've i'm he's she's let's that's there's what's when's
  where's who's why's how's somebody's someone's he'd how'd it'd someone'd
  something'd there'd they'd where'd who'd you'd how'll it'll somebody'll
  someone'll something'll they'll what'll who'll why'll you'll there're they're
  what're why're you're ma'am o'clock y'all 'twas
"""
CONTRACTIONS = {word.replace("'", ""): word for word in _SHORT.split()}
# Colons and apostrophes belong to times and words.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBER_WITH_COMMA = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")  # Not a decimal point.
FULL_SCORE = 3  # People who have to agree.


def normalized(answer: str) -> str:
  """An answer without what makes no difference.

  Lower case, no articles, digits for number words, apostrophes where they
  belong, no punctuation: within a word it becomes a space, beside a space and
  in texts with a number such as 1,000 it goes.
  """
  text = " ".join(answer.split())
  in_number = _NUMBER_WITH_COMMA.search(text)
  cleaned = text
  for mark in _PUNCTUATION:
    beside_space = f"{mark} " in text or f" {mark}" in text
    cleaned = cleaned.replace(mark, "" if beside_space or in_number else " ")
  cleaned = _PERIOD.sub("", cleaned).lower()
  spelled = [NUMBERS.get(word, word) for word in cleaned.split()]
  kept = [word for word in spelled if word not in ARTICLES]
  return " ".join(CONTRACTIONS.get(word, word) for word in kept)


def score(said: str, answers: Sequence[str]) -> float:
  """What an answer is worth, given what people answered.

  Of one answer: 1 if it is the same. Of ten: the mean over every nine of them
  of min(number that say the same / 3, 1), the official score. Of two or
  three, which cannot have three others, all others have to agree.

  Args:
    said: the answer to judge.
    answers: those of people, each as often as it was given.
  """
  said = normalized(said)
  right = [normalized(answer) == said for answer in answers]
  if len(right) == 1:
    return float(right[0])
  enough = min(FULL_SCORE, len(right) - 1)
  total = sum(right)
  return sum(min((total - own) / enough, 1.0) for own in right) / len(right)
