"""CIDEr-D: agreement with references, where rare words count more."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

MAX_WORDS = 4  # Of an n-gram.
SIGMA = 6.0  # Words that lengths may differ by, about.
SCALE = 10.0

Gram = tuple[str, ...]


def cider_d(
  candidates: Sequence[Sequence[str]],
  references: Sequence[Sequence[Sequence[str]]],
) -> Float[np.ndarray, " b"]:
  """CIDEr-D of each text, 0..10; that of a set is their mean.

  Source: Vedantam et al. 2015 (arXiv:1411.5726), 3 and 6: the cosine of
  n-grams of 1 to 4 words, weighed by how few pictures have them in their
  references, clipped to the reference's counts and damped by the difference
  of lengths. The parts of 1 to 4 words count a quarter each, so a right text
  of one word scores 2.5. With one picture alone no word is rare: all is 0.

  Args:
    candidates: words of each text.
    references: words of the right texts of each, at least one.
  """
  grams = [[_count(words) for words in own] for own in references]
  pictures: Counter[Gram] = Counter()
  for own in grams:
    pictures.update(set().union(*own))
  log_all = math.log(max(len(references), 1))

  def weigh(counts: Counter[Gram]) -> list[dict[Gram, float]]:
    parts: list[dict[Gram, float]] = [{} for _ in range(MAX_WORDS)]
    for gram, count in counts.items():
      rarity = log_all - math.log(max(pictures[gram], 1))
      parts[len(gram) - 1][gram] = count * rarity
    return parts

  scores = []
  for said, right, counts in zip(candidates, references, grams, strict=True):
    own = weigh(_count(said))
    values = [
      _cosine(own, weigh(theirs)) * _damping(len(said) - len(words))
      for words, theirs in zip(right, counts, strict=True)
    ]
    scores.append(SCALE * sum(values) / len(values))
  return np.array(scores, np.float64)


def _count(words: Sequence[str]) -> Counter[Gram]:
  return Counter(
    tuple(words[i : i + n])
    for n in range(1, MAX_WORDS + 1)
    for i in range(len(words) - n + 1)
  )


def _cosine(
  said: Sequence[Mapping[Gram, float]], right: Sequence[Mapping[Gram, float]]
) -> float:
  """The mean over lengths of n-grams."""
  total = 0.0
  for a, b in zip(said, right, strict=True):
    norms = math.hypot(*a.values()) * math.hypot(*b.values())
    if norms:
      total += sum(min(a[g], b[g]) * b[g] for g in a.keys() & b.keys()) / norms
  return total / MAX_WORDS


def _damping(difference: int) -> float:
  return math.exp(-(difference**2) / (2 * SIGMA**2))
