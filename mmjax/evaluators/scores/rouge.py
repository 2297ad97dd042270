"""ROUGE-L: the longest common subsequence of words."""

from collections.abc import Sequence


def rouge_l(
  candidate: Sequence[str],
  references: Sequence[Sequence[str]],
  *,
  beta: float = 1.2,
) -> float:
  """F-measure of the longest common subsequence.

  Source: Lin 2004, eq. 2 to 4. Of several references, the best precision and
  the best recall, as COCO's evaluation does (Chen et al. 2015,
  arXiv:1504.00325, 3.2).

  Args:
    candidate: words of a text.
    references: words of each right text.
    beta: how much more recall counts than precision; 1 = as much.
  """
  common = [longest_common(candidate, right) for right in references]
  precision = max(n / max(len(candidate), 1) for n in common)
  recall = max(
    n / max(len(right), 1) for n, right in zip(common, references, strict=True)
  )
  if not precision or not recall:
    return 0.0
  return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
  """Length of the longest sequence that both hold, gaps allowed."""
  row = [0] * (len(b) + 1)  # Of the words of `a` so far, with b's first j.
  for word in a:
    above = row
    row = [0]
    for j, other in enumerate(b):
      row.append(above[j] + 1 if word == other else max(above[j + 1], row[j]))
  return row[-1]
