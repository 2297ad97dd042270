"""What `mmjax embed` reads: files of a folder, or lines of JSON."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmjax.core import errors
from mmjax.data.files import lines, media, storage

KINDS = ("audio", "image", "text", "video")
ENDINGS = {e: kind for e, kind in media.FIELDS.items() if kind in media.MEDIA}
MOVING = ("gif", "webp")  # Pictures, and clips where no pictures are wanted.
MAX_ID = 1024  # Characters; the longest sets the width of all.


@dataclass
class Skipped:
  """What cannot be used: counted, or with `allowed` False an error."""

  allowed: bool
  num_listed: int = 5
  count: int = 0
  first: list[str] = field(default_factory=list)

  def add(self, reason: str) -> None:
    """Counts one.

    Raises:
      UserError: none may be skipped.
    """
    if not self.allowed:
      raise errors.UserError(
        f"{reason}. --skip_bad leaves out what cannot be used, and counts it."
      )
    self.count += 1
    if len(self.first) < self.num_listed:
      self.first.append(reason)


class Folder:
  """The pictures, recordings and clips in a folder, by their endings.

  Args:
    path: a folder or URL; folders within are looked into, hidden ones not.
    only: modalities wanted; empty = all.
  """

  label = "paths"  # What `ids` are called.

  def __init__(self, path: str, only: Collection[str]):
    self._path = storage.expand(path)
    start = len(storage.join(self._path, ""))
    self.ids: list[str] = []  # Path in the folder.
    self.modalities: set[str] = set()
    self.num_others = 0  # Files of other kinds.
    for file in storage.files_below(self._path):
      kind = _kind(file, only)
      if kind and (not only or kind in only):
        self.ids.append(file[start:])
        self.modalities.add(kind)
      else:
        self.num_others += 1
    self._only = only
    if not self.ids:
      raise errors.UserError(
        f"--inputs={path}: no {', '.join(only) or 'picture, recording or clip'}"
        f" among {self.num_others:,} files. Known endings: {sorted(ENDINGS)}."
      )

  def __len__(self) -> int:
    return len(self.ids)

  def where(self, index: int) -> str:
    """Names one for messages."""
    return storage.join(self._path, self.ids[index])

  def __getitem__(self, index: int) -> dict[str, bytes]:
    """The content of a file, by modality.

    Raises:
      ValueError: it cannot be read.
    """
    path = self.where(index)
    return {_kind(path, self._only): _read(path)}


class Lines:
  """Lines of JSON with `text`, `image`, `audio`, `video`, and maybe an `id`.

  What a line lacks, or has empty, is not embedded; other keys are not looked
  at. All lines are read once at the start, so that what is wrong with one is
  known before the work begins, and again when their turn comes: in memory
  stay places and ids.

  Args:
    path: of the file, local or a URL; paths of media are relative to it.
    only: modalities wanted; empty = all.
    skipped: counts lines that cannot be used.
  """

  label = "ids"

  def __init__(self, path: str, only: Collection[str], skipped: Skipped):
    self._path = storage.expand(path)
    self._file = lines.JsonLines(self._path)
    self._folder = storage.parent(self._path)
    self._only = only or KINDS
    self.num_others = 0
    self.ids: list[str] = []  # The line's `id`, or its number.
    self.modalities: set[str] = set()
    self._places: list[int] = []
    for place in range(len(self._file)):
      try:
        line = self._file[place]
        name, found = self._checked(line, place)
      except ValueError as e:
        skipped.add(_with_place(str(e), self._named(place)))
        continue
      self.ids.append(name)
      self.modalities.update(found)
      self._places.append(place)
    if not self.ids:
      raise errors.UserError(
        f"--inputs={path}: no line that can be used"
        f"{_list(skipped.first) if skipped.count else ', the file is empty'}."
      )
    if not self.modalities:
      raise errors.UserError(
        f"--inputs={path}: no line has {' or '.join(self._only)}."
      )

  def __len__(self) -> int:
    return len(self.ids)

  def where(self, index: int) -> str:
    """Names one for messages."""
    return self._named(self._places[index])

  def __getitem__(self, index: int) -> dict[str, str | bytes]:
    """The texts and the contents of the files of a line, by modality.

    Raises:
      ValueError: a file cannot be read.
    """
    given = self._given(self._file[self._places[index]])
    return {
      name: value if name == "text" else _read(self._join(value))
      for name, value in given.items()
    }

  def _named(self, place):
    return f"line {self._file.number(place)} of {self._path!r}"

  def _given(self, line):
    return {
      name: line[name]
      for name in self._only
      if line.get(name) is not None and line[name] != ""
    }

  def _join(self, name):
    return storage.join(self._folder, name)

  def _checked(
    self, line: Mapping[str, Any], place: int
  ) -> tuple[str, set[str]]:
    """The id of a line, and the modalities wanted that it has."""
    if not any(line.get(name) for name in KINDS):
      near = [errors.nearest(key, KINDS) for key in line if key not in KINDS]
      hint = next((n for n in near if n), "")
      raise ValueError(
        f"expected one or more of {list(KINDS)}, got {sorted(line)}.{hint}"
      )
    given = self._given(line)
    for name, value in given.items():
      if not isinstance(value, str):
        what = "a text" if name == "text" else "the path of a file"
        raise ValueError(f"{name!r} holds {value!r:.60}, expected {what}")
      if name != "text":
        _check_there(self._join(value))
    return self._id(line, place), set(given)

  def _id(self, line, place):
    name = line.get("id")
    if name is None:
      return str(self._file.number(place))
    if not isinstance(name, (str, int)) or isinstance(name, bool):
      raise ValueError(f"'id' holds {name!r:.60}, expected a text or integer")
    if len(str(name)) > MAX_ID:
      raise ValueError(f"'id' has more than {MAX_ID} characters")
    return str(name)


def open_inputs(
  path: str, only: Collection[str], skipped: Skipped
) -> Folder | Lines:
  """The files of a folder, or the lines of a file.

  Raises:
    UserError: there is no such, nothing in it can be used, or something
      cannot be used and `skipped` does not allow it.
  """
  for name in only:
    if name not in KINDS:
      raise errors.unknown("modality", name, KINDS)
  there = storage.expand(path)
  if storage.is_folder(there):
    return Folder(path, only)
  if not storage.exists(there):
    raise errors.UserError(
      f"--inputs={path}: no such file or folder; expected a folder of files, "
      f"or a file of JSON lines with the keys {list(KINDS)}."
    )
  if _ending(there) in ENDINGS:
    raise errors.UserError(
      f"--inputs={path} is a single file: give its folder, or a file of JSON "
      "lines that names it."
    )
  return Lines(path, only, skipped)


def _kind(path, only):
  """The modality of a file; "" if it is none that is read."""
  ending = _ending(path)
  if ending in MOVING and "video" in only and "image" not in only:
    return "video"
  return ENDINGS.get(ending, "")


def _ending(path):
  return path.rpartition("/")[2].rpartition(".")[2].lower()


def _check_there(path):
  # A pipe or a device would be waited for.
  if not storage.is_url(path) and not os.path.isfile(path):
    raise ValueError(f"no file at {path!r}")


def _read(path):
  _check_there(path)
  try:
    return storage.File(path).read()
  except (OSError, ValueError) as e:
    raise ValueError(f"{path!r} cannot be read: {e}") from e


def _with_place(reason, place):
  return reason if place in reason else f"{place}: {reason}"


def _list(reasons):
  return "".join(f"\n  {reason}" for reason in reasons)
