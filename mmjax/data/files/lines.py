"""Records of a text file by number: JSON Lines, CSV and TSV."""

import csv
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data.files import media, storage

BLOCK = 1 << 22  # Bytes that are read at once to find the lines.
MAX_LINE = 64 << 20  # Bytes; a longer record is taken for a damaged file.
NUM_LISTED = 5  # Broken lines in an error.


class JsonLines:
  """One JSON object per line; blank lines are skipped.

  The file is scanned once for where its lines are, 8 bytes a line; what is in
  them is looked at when an example is made.

  Raises:
    UserError: no such file.
  """

  def __init__(self, path: str):
    self._file = storage.File(path)
    starts, lengths, numbers = [], [], []
    for number, start, line in _lines(self._file):
      if line.strip():
        starts.append(start)
        lengths.append(len(line))
        numbers.append(number)
    self._starts = np.asarray(starts, np.int64)
    self._lengths = np.asarray(lengths, np.int64)
    self._numbers = np.asarray(numbers, np.int64)

  def __len__(self) -> int:
    return len(self._starts)

  def number(self, index: int) -> int:
    """Which line of the file it is, from 1."""
    return int(self._numbers[index])

  def __getitem__(self, index: int) -> dict[str, Any]:
    """The fields of a line.

    Raises:
      ValueError: it is no JSON object; names the line.
    """
    line = self._file.read(int(self._starts[index]), int(self._lengths[index]))
    where = f"line {self._numbers[index]} of {self._file.path!r}"
    try:
      value = json.loads(line.decode("utf-8"))
    except ValueError as e:
      raise ValueError(f"{where}: {e}") from e
    if not isinstance(value, Mapping):
      raise ValueError(f"{where}: a {type(value).__name__}, not an object")
    return {name: media.plain(item) for name, item in value.items()}


class Table:
  """Rows of a CSV or TSV file, whose first row names the columns.

  Quoted cells may hold line ends (RFC 4180).

  Raises:
    UserError: no such file, no header, or columns of one name.
  """

  def __init__(self, path: str, delimiter: str):
    self._file = storage.File(path)
    self._delimiter = delimiter
    starts: list[int] = []
    end = 0

    def decoded() -> Iterator[str]:
      nonlocal end
      for _, start, line in _lines(self._file):
        end = start + len(line)
        yield line.decode("utf-8", "replace")

    self.columns: tuple[str, ...] = ()
    row_start = 0
    for row in csv.reader(decoded(), delimiter=delimiter):
      if row and not self.columns:
        self.columns = tuple(name.strip().lstrip("\ufeff") for name in row)
      elif row:
        starts.append(row_start)
      row_start = end
    if len(set(self.columns)) != len(self.columns) or not self.columns:
      raise errors.UserError(
        f"The first row of {path!r} is {list(self.columns)}, expected distinct "
        "names of its columns."
      )
    self._bounds = np.asarray([*starts, end], np.int64)

  def __len__(self) -> int:
    return len(self._bounds) - 1

  def __getitem__(self, index: int) -> dict[str, str]:
    """The cells of a row by column.

    Raises:
      ValueError: it has more or fewer cells than the header, or is not UTF-8.
    """
    start, end = self._bounds[index : index + 2]
    text = self._file.read(int(start), int(end - start)).decode("utf-8")
    rows = csv.reader(text.splitlines(keepends=True), delimiter=self._delimiter)
    cells = next(row for row in rows if row)
    if len(cells) != len(self.columns):
      raise ValueError(
        f"row {index + 1} of {self._file.path!r} has {len(cells)} cells, its "
        f"header {len(self.columns)}"
      )
    return dict(zip(self.columns, cells, strict=True))


def _lines(file: storage.File) -> Iterator[tuple[int, int, bytes]]:
  """Number, first byte and content, with its end, of each line."""
  rest, start, number = b"", 0, 1
  for position in range(0, file.size, BLOCK):
    block = rest + file.read(position, min(BLOCK, file.size - position))
    *whole, rest = block.split(b"\n")
    for line in whole:
      yield number, start, line + b"\n"
      start, number = start + len(line) + 1, number + 1
    if len(rest) > MAX_LINE:
      raise errors.UserError(
        f"Line {number} of {file.path!r} is longer than {MAX_LINE:,} bytes: "
        "not a file of lines, or a damaged one."
      )
  if rest:
    yield number, start, rest
