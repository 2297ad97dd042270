"""Work on data alone: checking a set, training a tokenizer."""

from pathlib import Path

from mmjax.core import errors
from mmjax.data import check as check_lib
from mmjax.data.tokenizer import TextTokenizer


def check(path: str, split: str = "") -> tuple[check_lib.CheckResult, str]:
  """Looks at a data set; returns what was found, and as text."""
  result = check_lib.check(path, split)
  return result, check_lib.format_result(result)


def train_tokenizer(source: Path, vocab_size: int, out: Path) -> TextTokenizer:
  """Trains a tokenizer on the lines of a file and saves it.

  Raises:
    UserError: no such file, or one without text.
  """
  if not source.is_file():
    raise errors.UserError(
      f"No file at {str(source)!r}: expected a text file, one text a line."
    )
  lines = source.read_text(encoding="utf-8").splitlines()
  texts = [line for line in lines if line.strip()]
  if not texts:
    raise errors.UserError(f"{str(source)!r} has no text.")
  made = TextTokenizer.train(texts, vocab_size)
  made.save(out)
  return made
