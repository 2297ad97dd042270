"""A data set that `mmjax data prepare` wrote.

  <path>/<split>/
    features.json                     what is in it; written last
    data-00000-of-00012.array_record  records, see `records`
    kept.npy                          numbers of those that are used, if not all

Fast in any order, and checked: each record has a checksum.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from mmjax.core import errors
from mmjax.data.files import copies, records, storage

FEATURES, KEPT = "features.json", "kept.npy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
  """What a split holds."""

  source: str  # Where it came from.
  split: str
  shards: tuple[tuple[str, int], ...]  # Name and records of each file.
  num_examples: int  # That are used.
  fields: Mapping[str, str]  # What each field holds, in words.
  class_names: Mapping[str, tuple[str, ...]]
  statistics: Mapping[str, Any]
  version: int = 1


class PreparedSource:
  """One example per record that was kept.

  Raises:
    UserError: no such split, or a shard is missing or cut short.
  """

  def __init__(self, *, split: str, path: str = ""):
    folder = find(path, split)
    self.features = read_features(folder / FEATURES)
    self.class_names = dict(self.features.class_names)
    train = folder.parent / "train" / FEATURES
    if train.is_file():  # A class has the same number in each split.
      self.class_names |= read_features(train).class_names
    self.splits = {
      f.parent.name: read_features(f).num_examples
      for f in sorted(folder.parent.glob(f"*/{FEATURES}"))
    } or {self.features.split: self.features.num_examples}
    self._files = [str(folder / name) for name, _ in self.features.shards]
    self._kept = None
    if (folder / KEPT).is_file():
      self._kept = np.load(folder / KEPT, allow_pickle=False)
    self._records = self._open()
    want = sum(count for _, count in self.features.shards)
    if len(self._records) != want:
      raise errors.UserError(
        f"{str(folder)!r} has {len(self._records):,} records, {FEATURES} says "
        f"{want:,}: a shard is damaged. Prepare it again."
      )

  def __len__(self) -> int:
    return self.features.num_examples

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    return records.unpack(self.record(index))

  def record(self, index: SupportsIndex) -> bytes:
    """An example as it is stored, see `records`."""
    index = index.__index__()
    if not 0 <= index < len(self):
      raise IndexError(f"index {index} of {len(self)} examples")
    number = index if self._kept is None else int(self._kept[index])
    return self._records[number]

  def _open(self):
    from array_record.python import array_record_data_source

    try:
      return array_record_data_source.ArrayRecordDataSource(self._files)
    except Exception as e:  # Whatever a damaged file does to its reader.
      raise errors.UserError(
        f"The shards of {self._files[0]!r} cannot be read: {e} Prepare them "
        "again."
      ) from e

  def __getstate__(self):
    return {**self.__dict__, "_records": None}

  def __setstate__(self, state):
    self.__dict__.update(state)
    self._records = self._open()


def find(path: str, split: str) -> Path:
  """The folder of a split; of data behind a URL, a copy of it.

  Raises:
    UserError: there is none, or it is not finished.
  """
  root = Path(path).expanduser()
  if storage.is_url(path):
    root = copies.split_of(path, split, FEATURES)
  if (root / FEATURES).is_file():
    return root
  known = sorted(f.parent.name for f in root.glob(f"*/{FEATURES}"))
  if not path or not known:
    raise errors.UserError(
      f"No prepared data at {path!r} (data.path): expected {FEATURES} in it, "
      f"or in {split or '<split>'}/. `mmjax data prepare` writes it last: run "
      "it again to go on with what was begun."
    )
  if split not in known:
    raise errors.unknown(f"split of {str(root)!r}", split, known)
  return root / split


def is_prepared(path: str) -> bool:
  """Whether a folder is one of prepared data."""
  if storage.is_url(path):
    return copies.has(path, FEATURES)
  root = Path(path).expanduser()
  return any(root.glob(FEATURES)) or any(root.glob(f"*/{FEATURES}"))


def read_features(file: Path) -> Features:
  """Reads `features.json`.

  Raises:
    UserError: it is something else.
  """
  try:
    content = json.loads(file.read_text("utf-8"))
    content["shards"] = tuple((str(n), int(c)) for n, c in content["shards"])
    content["class_names"] = {
      name: tuple(names) for name, names in content["class_names"].items()
    }
    return Features(**content)
  except (OSError, ValueError, TypeError, KeyError) as e:
    raise errors.UserError(f"{str(file)!r} cannot be read: {e}") from e
