"""WebDataset tar shards, in any order: an index instead of a stream.

Members of one name make one example, "000017.jpg" and "000017.txt"; see
https://github.com/webdataset/webdataset for the form.
"""

import dataclasses
import re
import tarfile
from concurrent import futures
from typing import Any, SupportsIndex

import numpy as np

from mmjax.core import errors
from mmjax.data.files import media, storage

HEADER = 512  # Bytes of a header; contents are padded to multiples.
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
THREADS = 8  # That index shards.


@dataclasses.dataclass(frozen=True)
class Member:
  """A file within a shard."""

  ending: str
  start: int  # First byte of its content.
  length: int


class TarSource:
  """One example per name in tar shards; `__key__` is the name.

  Opening reads the headers only. Shards that are compressed have no order but
  their own: unpack these first.

  Args:
    split: of a folder, the shards in `<split>/`, or named `<split>-*.tar`.
    path: a shard, a folder, or a pattern such as "pairs-{0000..0099}.tar".

  Raises:
    UserError: no shards, or one that is no tar file or is cut short.
  """

  def __init__(self, *, split: str, path: str = ""):
    self._shards = [storage.File(shard) for shard in find(path, split)]
    with futures.ThreadPoolExecutor(THREADS) as pool:
      indices = list(pool.map(_index, self._shards))
    self._examples = [list(index.values()) for index in indices]
    self._keys = [list(index) for index in indices]
    self._ends = np.cumsum([len(i) for i in indices], dtype=np.int64)

  def __len__(self) -> int:
    return int(self._ends[-1])

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    shard = int(np.searchsorted(self._ends, index, side="right"))
    place = index - (int(self._ends[shard - 1]) if shard else 0)
    example: dict[str, Any] = {"__key__": self._keys[shard][place]}
    for member in self._examples[shard][place]:
      content = self._shards[shard].read(member.start, member.length)
      example |= media.fields_of(member.ending, content)
    return example


def find(path: str, split: str) -> list[str]:
  """The shards of a split, in order of their names.

  Raises:
    UserError: there are none.
  """
  root = storage.expand(path)
  if not path:
    found = []
  elif BRACES.search(root):
    found = _expand(root)
  elif storage.is_folder(root):
    found = _in_folder(root, split)
  else:
    found = [root]
  if not found:
    name = split or "<split>"
    raise errors.UserError(
      f"No tar shards of the split {split!r} at {path!r} (data.path). Expected "
      f"a folder with {name}/*.tar, {name}-*.tar or *.tar, one shard, or a "
      "pattern such as 'pairs-{0000..0099}.tar'."
    )
  return found


def _in_folder(root, split):
  inside = storage.join(root, split)
  if split and storage.is_folder(inside):
    root, split = inside, ""
  tars = [
    f for f in storage.files_below(root, deep=False) if f.endswith(".tar")
  ]
  own = [f for f in tars if re.match(rf"{re.escape(split)}\b", _name(f))]
  if split and own:
    return own
  return tars if split in ("", "train") else []


def _name(path):
  return path.rpartition("/")[2]


def _expand(pattern: str) -> list[str]:
  """Braces with a range of numbers, as in a shell."""
  match = BRACES.search(pattern)
  if match is None:
    return [pattern]
  first, last = match.groups()
  names = [
    f"{pattern[: match.start()]}{i:0{len(first)}d}{pattern[match.end() :]}"
    for i in range(int(first), int(last) + 1)
  ]
  return [found for name in names for found in _expand(name)]


def _index(shard: storage.File) -> dict[str, list[Member]]:
  """The members of each example, in the order of the shard."""
  found: dict[str, list[Member]] = {}
  for name, start, length in members(shard):
    key, ending = media.split_name(name)
    found.setdefault(key, []).append(Member(ending, start, length))
  if not found:
    raise errors.UserError(f"The shard {shard.path!r} has no files in it.")
  return found


def members(shard: storage.File):
  """Name, first byte and length of each file in a tar archive.

  Raises:
    UserError: it is none, or is cut short.
  """
  position, long_name = 0, ""
  while position + HEADER <= shard.size:
    block = shard.read(position, HEADER)
    if not block.strip(b"\0"):
      return
    try:
      info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as e:
      raise errors.UserError(
        f"{shard.path!r} is no tar file at byte {position:,}: {e}. One that is "
        "compressed has to be unpacked: examples are read in any order."
      ) from e
    start = position + HEADER
    position = start + -(-info.size // HEADER) * HEADER
    if start + info.size > shard.size:
      raise errors.UserError(
        f"The shard {shard.path!r} is cut short: {info.name!r} ends at byte "
        f"{start + info.size:,}, the file at {shard.size:,}."
      )
    if info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
      long_name = _long_name(info.type, shard.read(start, info.size))
      continue
    if info.isreg():
      yield long_name or info.name, start, info.size
    long_name = ""
  raise errors.UserError(
    f"The shard {shard.path!r} is cut short: it has no end mark, two blocks of "
    f"zeros, before its {shard.size:,} bytes are over."
  )


def _long_name(kind: bytes, content: bytes) -> str:
  """A name that did not fit into a header: GNU's way, or POSIX's."""
  if kind == tarfile.GNUTYPE_LONGNAME:
    return content.rstrip(b"\0").decode("utf-8", "surrogateescape")
  while content:
    length = int(content.split(b" ", 1)[0])
    key, _, value = content[:length].split(b" ", 1)[1].partition(b"=")
    if key == b"path":
      return value.rstrip(b"\n").decode("utf-8", "surrogateescape")
    content = content[length:]
  return ""
