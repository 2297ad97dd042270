"""Arrays that grow row by row on disk and end as one `.npz`."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mmjax.core import errors, folders

ENDING = ".npz"
CHUNK = 65_536  # Texts that are brought to one width at a time.
PRESENT = "_present"


class Column:
  """Rows of one array in a file; rows that are never written are zeros."""

  def __init__(self, path: Path, like: np.ndarray):
    self._path = path
    self._shape, self._dtype = like.shape[1:], like.dtype
    self._row_bytes = like[:1].nbytes
    self._file = path.open("wb")

  def write(self, start: int, rows: np.ndarray) -> None:
    """Puts rows at a place; what lies between stays a hole in the file."""
    self._file.seek(start * self._row_bytes)
    self._file.write(np.ascontiguousarray(rows).data)

  def array(self, num_rows: int) -> np.ndarray:
    """All of it, mapped into memory; nothing is written after that."""
    self._file.truncate(num_rows * self._row_bytes)
    self._file.close()
    shape = (num_rows, *self._shape)
    return np.memmap(self._path, self._dtype, mode="r", shape=shape)

  def close(self) -> None:
    self._file.close()


class Table:
  """Columns of one length, in files of a folder, to become `out`."""

  def __init__(self, folder: Path, out: Path):
    self._folder = folder
    self._out = out
    self._columns: dict[str, Column] = {}

  def write(self, name: str, start: int, rows: np.ndarray) -> None:
    """Puts rows of a column at a place; a new column begins with zeros."""
    with _named(self._out):
      if name not in self._columns:
        self._columns[name] = Column(self._folder / f"{name}.raw", rows)
      self._columns[name].write(start, rows)

  def write_texts(self, name: str, texts: Sequence[str]) -> None:
    """Writes a column of texts, as wide as the longest."""
    width = max(1, *map(len, texts))
    for start in range(0, len(texts), CHUNK):
      part = np.array(texts[start : start + CHUNK], dtype=f"<U{width}")
      self.write(name, start, part)

  def save(self, num_rows: int) -> dict[str, tuple[int, ...]]:
    """Writes all columns; `out` is there when it is whole.

    A column `<name>_present` in which nothing lacks is left out.

    Returns:
      The shape of each array, by its name.
    """
    with _named(self._out):
      arrays = {k: v.array(num_rows) for k, v in self._columns.items()}
      arrays = {
        name: array
        for name, array in arrays.items()
        if not (name.endswith(PRESENT) and array.all())
      }
      whole = self._folder / self._out.name
      np.savez(whole, **arrays)  # type: ignore[arg-type]
      os.replace(whole, self._out)
    return {name: array.shape for name, array in arrays.items()}

  def close(self) -> None:
    """Closes the files."""
    for column in self._columns.values():
      column.close()


def check_out(out: str, *, overwrite: bool) -> Path:
  """The file to write.

  Raises:
    UserError: another ending, no such folder, or it is there already.
  """
  path = folders.local(out).expanduser()
  if path.suffix.lower() != ENDING:
    raise errors.UserError(
      f"--out={out}: vectors are written as {ENDING}, for np.load."
    )
  if not path.parent.is_dir():
    raise errors.UserError(f"--out={out}: no folder {str(path.parent)!r}.")
  if path.is_dir() or (path.exists() and not overwrite):
    what = "is a folder" if path.is_dir() else "is there already"
    how = "" if path.is_dir() else "; --overwrite replaces it when all is done"
    raise errors.UserError(f"--out={out} {what}{how}.")
  return path


@contextlib.contextmanager
def writing(out: Path) -> Iterator[Table]:
  """A table to fill, in a hidden folder beside `out` that goes away again.

  Raises:
    UserError: the disk is full, or the folder not writable.
  """
  with _named(out):
    folder = tempfile.TemporaryDirectory(
      prefix=f".{out.name}.", dir=out.parent, ignore_cleanup_errors=True
    )
  with folder as name, contextlib.closing(Table(Path(name), out)) as table:
    yield table


@contextlib.contextmanager
def _named(out):
  try:
    yield
  except OSError as e:
    raise errors.UserError(f"--out={out} cannot be written: {e}.") from e
