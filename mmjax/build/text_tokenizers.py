"""Training a text tokenizer on the texts of any source."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmjax.build import datasets
from mmjax.core import errors
from mmjax.data import files, sources
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.tokenizer_fit import Fit

NUM_FITTED = 1000  # Texts that the fit is measured on: the first ones.
SHOWN = 60  # Characters of the example.
TEXT_FILE = ".txt"  # One text a line.

Progress = Callable[[int, int], None]  # Told examples done, of how many.


@dataclass(frozen=True)
class Trained:
  """A tokenizer, and what came of the texts."""

  tokenizer: TextTokenizer
  num_texts: int
  num_broken: int  # Examples that could not be read.
  fit: Fit  # On the first texts.
  example: str  # A text, cut into its tokens.


def train(
  spec: str,
  out: str | Path,
  *,
  vocab_size: int,
  kind: str = "bpe",
  fields: tuple[str, ...] = (),
  split: str = "train",
  data_dir: str = "",
  columns: Mapping[str, str] | None = None,
  on_progress: Progress = lambda done, total: None,
) -> Trained:
  """Trains a tokenizer and saves it.

  Args:
    spec: a file of texts, one a line, that ends in .txt; or a source as
      `datasets.prepare` takes.
    out: JSON file to write.
    vocab_size: entries, special tokens included.
    kind: "bpe" or "unigram".
    fields: of the source, those with the texts; () is `text`.
    split: of the source.
    data_dir: where TFDS data lie.
    columns: field -> column of a table.
    on_progress: told examples done, of how many.

  Raises:
    UserError: no such source, or one without text.
  """
  if spec.endswith(TEXT_FILE) and not files.is_pattern(spec):
    reader: _Lines | _Examples = _Lines(Path(spec).expanduser())
  else:
    source = datasets.open_spec(spec, split, data_dir, columns)
    reader = _Examples(source, fields or ("text",), on_progress)
  texts = iter(reader)
  first = list(itertools.islice(texts, NUM_FITTED))
  if not first:
    raise errors.UserError(f"{spec!r} has no text.")
  made = TextTokenizer.train(itertools.chain(first, texts), vocab_size, kind)
  made.save(out)
  fit = Fit()
  for text in first:
    fit.add(text, made)
  cut = "|".join(made.token(i) for i in made.pieces(first[0][:SHOWN]))
  return Trained(made, reader.num_texts, reader.num_broken, fit, cut)


class _Lines:
  """The lines of a file that are not blank."""

  num_broken = 0

  def __init__(self, file: Path):
    if not file.is_file():
      raise errors.UserError(
        f"No file at {str(file)!r}: expected a text file, one text a line."
      )
    self._file, self.num_texts = file, 0

  def __iter__(self) -> Iterator[str]:
    try:
      # Only "\n" ends a line: `open` would take "\r" for another end.
      with self._file.open(encoding="utf-8", newline="\n") as lines:
        for line in lines:
          if line.strip():
            self.num_texts += 1
            yield line.rstrip("\r\n")
    except UnicodeDecodeError as e:
      raise errors.UserError(f"{str(self._file)!r} is not UTF-8: {e}") from e


class _Examples:
  """The texts of some fields of a source, in its order."""

  def __init__(
    self,
    source: sources.Source,
    fields: tuple[str, ...],
    on_progress: Progress,
  ):
    self._source, self._fields = source, fields
    self._on_progress = on_progress
    self.num_texts = self.num_broken = 0

  def __iter__(self) -> Iterator[str]:
    total = len(self._source)
    for index in range(total):
      try:
        example = self._source[index]
      except (OSError, ValueError, LookupError):
        self.num_broken += 1
        continue
      for text in self._texts(example):
        if text.strip():
          self.num_texts += 1
          yield text
      self._on_progress(index + 1, total)

  def _texts(self, example: Mapping[str, Any]) -> Iterator[str]:
    for field in self._fields:
      if field not in example:
        words = [n for n, v in example.items() if _is_text(v)]
        raise errors.UserError(
          f"The source has no field {field!r}.{errors.nearest(field, words)} "
          f"Texts are in {sorted(words)}: name some with --field=A,B."
        )
      value = example[field]
      if not _is_text(value):
        raise errors.UserError(
          f"The field {field!r} holds a {type(value).__name__}, expected text."
        )
      yield from (value,) if isinstance(value, str) else value


def _is_text(value: Any) -> bool:
  if isinstance(value, tuple):
    return all(isinstance(item, str) for item in value)
  return isinstance(value, str)
