"""Rows of a Parquet file by number."""

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data.files import media

KEPT = 2  # Row groups in memory, per thread that reads.


class Parquet:
  """Reads a row group when one of its rows is asked for.

  Row groups are what is read at once: in shuffled order a file with few large
  ones is slow. `mmjax data prepare` writes what is fast in any order.

  Raises:
    UserError: not a Parquet file, or pyarrow is not installed.
  """

  def __init__(self, path: str):
    self._path = path
    self._local = threading.local()
    metadata = self._open().metadata
    counts = [
      metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
    ]
    self._ends = np.cumsum(counts, dtype=np.int64)

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: int) -> dict[str, Any]:
    group = int(np.searchsorted(self._ends, index, side="right"))
    first = int(self._ends[group - 1]) if group else 0
    row = self._group(group).slice(index - first, 1).to_pylist()[0]
    return {name: media.plain(value) for name, value in row.items()}

  def column(self, name: str) -> list[Any]:
    """All cells of a column; none if there is no such column."""
    file = self._open()
    if name not in file.schema_arrow.names:
      return []
    cells = file.read(columns=[name]).column(name).to_pylist()
    return [media.plain(cell) for cell in cells]

  def _group(self, group):
    if not hasattr(self._local, "file"):
      self._local.file, self._local.groups = self._open(), {}
    groups = self._local.groups
    if group not in groups:
      if len(groups) >= KEPT:
        groups.pop(next(iter(groups)))
      groups[group] = self._local.file.read_row_group(group)
    return groups[group]

  def _open(self):
    arrow = import_pyarrow("pyarrow.parquet", self._path)
    import fsspec

    try:
      return arrow.ParquetFile(fsspec.open(self._path, "rb").open())
    except Exception as e:  # Whatever a damaged file does to the parser.
      raise errors.UserError(
        f"{self._path!r} is not a Parquet file that can be read: "
        f"{type(e).__name__}: {e}"
      ) from e

  def __getstate__(self) -> Mapping[str, Any]:
    return {**self.__dict__, "_local": None}

  def __setstate__(self, state):
    self.__dict__.update(state, _local=threading.local())


def import_pyarrow(module: str, path: str) -> Any:
  """Imports a module of pyarrow.

  Raises:
    UserError: it is not installed.
  """
  import importlib

  try:
    return importlib.import_module(module)
  except ImportError as e:
    raise errors.UserError(
      f"Reading {path!r} takes pyarrow: pip install pyarrow."
    ) from e
