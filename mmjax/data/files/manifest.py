"""A table with an example per row: JSON Lines, CSV, TSV or Parquet.

Cells of `image`, `audio` and `video` are paths, relative to the table's
folder, or in Parquet the encoded bytes. All other columns are fields as they
are. `columns` says which column is which field, if they have other names.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from mmjax.core import errors
from mmjax.data.files import lines, media, parquet, storage

ENDINGS = ("jsonl", "ndjson", "csv", "tsv", "parquet")


@runtime_checkable
class Records(Protocol):
  """What a table gives."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class ManifestSource:
  """One example per row, its files read when it is made.

  Args:
    split: name of the file in the folder, without its ending.
    path: a folder with a table per split, or one table.
    columns: field -> column; a column that is not named is its own field.

  Raises:
    UserError: no such table, or a column that it lacks.
  """

  def __init__(
    self,
    *,
    split: str,
    path: str = "",
    columns: Mapping[str, str] | None = None,
  ):
    self.path = find(path, split)
    self._root = path
    self._records = open_records(self.path)
    self._folder = storage.parent(self.path)
    self._columns = dict(columns or {})
    if len(self._records) and self._columns:
      known = self._records[0]
      for field, column in self._columns.items():
        if column not in known:
          raise errors.unknown(
            f"column of {self.path!r}, data.columns.{field},", column, known
          )

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    record = dict(self._records[index.__index__()])
    example = {
      field: record[column]
      for field, column in self._columns.items()
      if column in record
    }
    for column in self._columns.values():
      record.pop(column, None)
    # A row may lack what others have: null, or an empty path.
    example = {k: v for k, v in (record | example).items() if v is not None}
    for field in media.MEDIA:
      if example.get(field):
        example[field] = self._load(field, example[field])
      else:
        example.pop(field, None)
    return example

  def find_classes(self, field: str) -> tuple[str, ...]:
    """The distinct texts of a field, sorted; reads that column.

    Those of the split "train" if there is one, so that the classes have the
    same numbers in each split.

    Raises:
      UserError: it holds numbers, which do not say how many there may be.
    """
    records = self._records
    try:
      train = find(self._root, "train")
    except errors.UserError:
      train = self.path
    if train != self.path:
      records = open_records(train)
    return distinct(column_of(records, self._columns.get(field, field)), field)

  def _load(self, field, value):
    """The bytes of a path, or those that the table itself holds."""
    if isinstance(value, Mapping):  # As Hugging Face's tables have it.
      value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
      return value
    if not isinstance(value, str):
      raise ValueError(
        f"{field!r} holds a {type(value).__name__}, expected a path or bytes"
      )
    path = storage.join(self._folder, value)
    try:
      return storage.File(path).read()
    except errors.UserError as e:  # One file is missing, not all.
      raise ValueError(str(e)) from e


def find(path: str, split: str) -> str:
  """The table of a split.

  Raises:
    UserError: there is none; says where it was looked for.
  """
  root = storage.expand(path)
  if path and storage.is_folder(root):
    names = [split, "metadata"] if split in ("", "train") else [split]
    for name in names:
      for ending in ENDINGS:
        file = storage.join(root, f"{name}.{ending}")
        if storage.exists(file):
          return file
  elif path and storage.exists(root) and _ending(root) in ENDINGS:
    return root
  raise errors.UserError(
    f"No table of the split {split!r} at {path!r} (data.path). Expected a file "
    f"that ends in one of {list(ENDINGS)}, or a folder with "
    f"{split or '<split>'}.jsonl or the like."
  )


def column_of(records: Records, column: str) -> Iterable[Any]:
  """The cells of one column; of rows that cannot be read, nothing."""
  if isinstance(records, parquet.Parquet):  # Without the pictures beside it.
    yield from records.column(column)
    return
  for index in range(len(records)):
    try:
      yield records[index].get(column)
    except (ValueError, OSError):  # Whoever needs the row reports it.
      continue


def distinct(values: Iterable[Any], field: str) -> tuple[str, ...]:
  """The names of classes that occur, sorted; numbers as text by their value.

  Raises:
    UserError: one is a number.
  """
  found: set[str] = set()
  for value in values:
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if item is None:
        continue
      if not isinstance(item, str):
        raise errors.UserError(
          f"The field {field!r} holds {item!r}, a {type(item).__name__}: the "
          "data do not say which classes there are. Give their names "
          "(config.data.label.names), or, if they are 0, 1, 2, ..., how many "
          "(config.data.label.num_classes)."
        )
      found.add(item)
  if all(name.isdecimal() for name in found):
    return tuple(sorted(found, key=int))
  return tuple(sorted(found))


def open_records(path: str) -> Records:
  """Opens a table by its ending."""
  ending = _ending(path)
  if ending == "parquet":
    return parquet.Parquet(path)
  if ending in ("csv", "tsv"):
    return lines.Table(path, "," if ending == "csv" else "\t")
  return lines.JsonLines(path)


def _ending(path: str) -> str:
  return path.rpartition(".")[2].lower()
