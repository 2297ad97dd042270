"""Files on disk or behind a URL: what readers need of them, and no more.

A path with "://" in it goes through `fsspec`, which knows s3, gs, http, memory
and others, each with a package of its own; anything else is a local path.
"""

import os
from pathlib import Path
from typing import Any

from mmjax.core import errors


class File:
  """One file, read by ranges; safe for threads.

  Raises:
    UserError: no such file, or nothing that reads such a URL.
  """

  def __init__(self, path: str):
    self.path = path
    self._remote = _remote(path)
    try:
      if self._remote is None:
        self.size = os.stat(path).st_size
      else:
        self.size = int(self._remote.size(path))
    except OSError as e:
      raise errors.UserError(f"No file at {path!r}: {e}") from e
    self._handle: int | None = None

  def read(self, start: int = 0, length: int | None = None) -> bytes:
    """Bytes from `start` on.

    Raises:
      ValueError: the file ends before.
    """
    length = self.size - start if length is None else length
    if self._remote is None:
      found = self._read_local(start, length)
    else:
      found = self._remote.cat_file(self.path, start, start + length)
    if len(found) != length:
      raise ValueError(
        f"{self.path!r} ends after {start + len(found):,} bytes, expected "
        f"{start + length:,}"
      )
    return found

  def _read_local(self, start, length):
    # One descriptor for all threads: `pread` has no position to share.
    if self._handle is None:
      self._handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
    parts = []
    while length > 0:
      part = os.pread(self._handle, min(length, 1 << 30), start)
      if not part:
        break
      parts.append(part)
      start, length = start + len(part), length - len(part)
    return b"".join(parts)

  def __getstate__(self):
    return {**self.__dict__, "_handle": None}  # Another process opens its own.

  def __del__(self):
    if getattr(self, "_handle", None) is not None:
      os.close(self._handle)


def is_url(path: str) -> bool:
  """Whether a path is read through `fsspec`."""
  return "://" in path


def join(folder: str, name: str) -> str:
  """A path in a folder, local or not; absolute names and URLs stay."""
  if is_url(name) or os.path.isabs(name):
    return name
  if is_url(folder):
    return f"{folder.rstrip('/')}/{name}"
  return os.path.join(folder, name)


def parent(path: str) -> str:
  """The folder of a path."""
  return path.rpartition("/")[0] if is_url(path) else os.path.dirname(path)


def expand(path: str) -> str:
  """A local path with "~" written out."""
  return path if is_url(path) else str(Path(path).expanduser())


def is_folder(path: str) -> bool:
  """Whether there is a folder."""
  remote = _remote(path)
  return os.path.isdir(path) if remote is None else remote.isdir(path)


def exists(path: str) -> bool:
  """Whether there is a file or folder."""
  remote = _remote(path)
  return os.path.exists(path) if remote is None else remote.exists(path)


def files_below(folder: str, *, deep: bool = True) -> list[str]:
  """Paths of the files in a folder, sorted, hidden ones left out.

  Args:
    folder: local or not.
    deep: also those in folders within.
  """
  remote = _remote(folder)
  if remote is not None:
    found = remote.find(folder, maxdepth=None if deep else 1)
    found = [remote.unstrip_protocol(name) for name in found]
    start = len(remote.unstrip_protocol(folder).rstrip("/")) + 1
    return sorted(f for f in found if not _hidden(f[start:]))
  found = []
  for where, folders, names in os.walk(folder):
    folders[:] = [name for name in folders if not _hidden(name)]
    found += [os.path.join(where, name) for name in names if not _hidden(name)]
    if not deep:
      break
  return sorted(found)


def _hidden(name: str) -> bool:
  return any(part.startswith(".") for part in name.split("/"))


def _remote(path: str) -> Any:
  """The file system of a URL; None for a local path.

  Raises:
    UserError: nothing reads it.
  """
  if not is_url(path):
    return None
  import fsspec

  try:
    return fsspec.core.url_to_fs(path)[0]
  except (ImportError, ValueError) as e:
    raise errors.UserError(f"Nothing reads {path!r}: {e}") from e
