"""BLEU, by sacrebleu."""

import importlib.util
from collections.abc import Sequence

from mmjax.core import errors


def check_installed() -> None:
  """Raises `UserError` if the library is not there."""
  if importlib.util.find_spec("sacrebleu") is None:
    raise errors.UserError(
      "BLEU needs the library sacrebleu: pip install 'mmjax[metrics]', or "
      "leave 'bleu4' out of metrics."
    )


def bleu4(
  candidates: Sequence[Sequence[str]],
  references: Sequence[Sequence[Sequence[str]]],
) -> float:
  """BLEU-4 of a whole set of texts, 0..1.

  Source: Papineni et al. 2002, eq. 1 to 3, without smoothing: 0 if not one
  run of four words is right.

  Args:
    candidates: words of each text.
    references: words of the right texts of each, at least one.
  """
  check_installed()
  from sacrebleu.metrics import BLEU

  said = [" ".join(words) for words in candidates]
  # The library takes the first reference of every text, then the second, ...
  most = max(map(len, references), default=0)
  columns = [
    [" ".join(own[i]) if i < len(own) else None for own in references]
    for i in range(most)
  ]
  scorer = BLEU(tokenize="none", smooth_method="none", force=True)
  return scorer.corpus_score(said, columns).score / 100
