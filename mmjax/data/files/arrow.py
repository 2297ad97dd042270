"""A Hugging Face data set on disk, as `Dataset.save_to_disk` writes it."""

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from mmjax.core import errors
from mmjax.data.files import media, parquet, storage

STATE, INFO, DICT = "state.json", "dataset_info.json", "dataset_dict.json"


class ArrowSource:
  """One example per row; the files are mapped into memory, not read.

  Columns of pictures and recordings become their encoded bytes, named classes
  their names.

  Args:
    split: of a `DatasetDict`; a single data set is "train".
    path: the folder.

  Raises:
    UserError: no such data set, split or file, or pyarrow is missing.
  """

  def __init__(self, *, split: str, path: str = ""):
    self._folder = _find(path, split)
    state = _read(self._folder / STATE)
    info = _read(self._folder / INFO)
    self._files = [
      str(self._folder / item["filename"]) for item in state["_data_files"]
    ]
    self._local = threading.local()
    tables = self._tables()
    self._ends = np.cumsum([t.num_rows for t in tables], dtype=np.int64)
    features = info.get("features") or {}
    self.class_names = {
      name: tuple(feature["names"])
      for name, feature in features.items()
      if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel"
    }

  def __len__(self) -> int:
    return int(self._ends[-1]) if len(self._ends) else 0

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    number = int(np.searchsorted(self._ends, index, side="right"))
    first = int(self._ends[number - 1]) if number else 0
    row = self._tables()[number].slice(index - first, 1).to_pylist()[0]
    example = {}
    for name, value in row.items():
      if isinstance(value, Mapping) and {"bytes", "path"} <= set(value):
        value = value["bytes"] or self._load(value["path"])
      elif name in self.class_names and isinstance(value, int):
        value = self.class_names[name][value]
      if value is not None:
        example[name] = media.plain(value)
    return example

  def _load(self, path):
    try:
      return storage.File(storage.join(str(self._folder), path)).read()
    except errors.UserError as e:
      raise ValueError(str(e)) from e

  def _tables(self):
    if not hasattr(self._local, "tables"):
      self._local.tables = [_open(file) for file in self._files]
    return self._local.tables

  def __getstate__(self):
    return {**self.__dict__, "_local": None}

  def __setstate__(self, state):
    self.__dict__.update(state, _local=threading.local())


def _open(file: str):
  arrow = parquet.import_pyarrow("pyarrow", file)
  try:
    return arrow.ipc.open_stream(arrow.memory_map(file)).read_all()
  except (OSError, arrow.ArrowInvalid) as e:
    raise errors.UserError(f"{file!r} cannot be read: {e}") from e


def _find(path: str, split: str) -> Path:
  root = Path(path).expanduser()
  if path and (root / DICT).is_file():
    known = _read(root / DICT).get("splits", [])
    if split not in known:
      raise errors.unknown(f"split of {str(root)!r}", split, known)
    return root / split
  if path and (root / STATE).is_file():
    if split not in ("", "train"):
      raise errors.UserError(
        f"{str(root)!r} is one data set without splits: data.split={split!r}, "
        "expected 'train'."
      )
    return root
  raise errors.UserError(
    f"No data set of Hugging Face `datasets` at {path!r} (data.path). Expected "
    f"a folder that `save_to_disk` wrote, with {DICT} or {STATE}."
  )


def _read(file: Path) -> Mapping[str, Any]:
  try:
    return json.loads(file.read_text("utf-8"))
  except (OSError, ValueError) as e:
    raise errors.UserError(f"{str(file)!r} cannot be read: {e}") from e
