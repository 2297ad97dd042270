"""A score like METEOR's, of equal words only."""

from collections.abc import Sequence


def meteor(
  candidate: Sequence[str], references: Sequence[Sequence[str]]
) -> float:
  """Harmonic mean of unigram matches, less a penalty for their disorder.

  Source: Banerjee & Lavie 2005, 2.2, its first stage alone: words match if
  they are equal, without stems, synonyms or paraphrases. So it is lower than
  METEOR 1.5, whose parameters are others too. F = 10 P R / (R + 9 P), less
  half the cube of (runs / matches): even a text that is right has one run, so
  one right word scores 0.5. Of several references, the best score.
  """
  return max(_score(candidate, right) for right in references)


def _score(candidate, reference):
  runs = aligned_runs(candidate, reference)
  matches = sum(runs)
  if not matches:
    return 0.0
  precision, recall = matches / len(candidate), matches / len(reference)
  mean = 10 * precision * recall / (recall + 9 * precision)
  return mean * (1 - 0.5 * (len(runs) / matches) ** 3)


def aligned_runs(a: Sequence[str], b: Sequence[str]) -> list[int]:
  """Lengths of the runs of words that two texts share, each word used once.

  As many words as possible are matched. The longest common run is taken
  first, then the longest of what is left: with few words that repeat, these
  are the fewest runs that there can be.
  """
  a_left: list[str | None] = list(a)
  b_left: list[str | None] = list(b)
  runs = []
  while True:
    length, i, j = _longest_run(a_left, b_left)
    if not length:
      return runs
    runs.append(length)
    a_left[i : i + length] = [None] * length
    b_left[j : j + length] = [None] * length


def _longest_run(a, b):
  """Length and starts of the longest common run; None matches nothing."""
  best = 0, 0, 0
  above = [0] * (len(b) + 1)
  for i, word in enumerate(a):
    row = [0] * (len(b) + 1)
    for j, other in enumerate(b):
      if word is not None and word == other:
        length = row[j + 1] = above[j] + 1
        if length > best[0]:
          best = length, i - length + 1, j - length + 1
    above = row
  return best
