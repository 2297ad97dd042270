"""Keeps a folder of this host and one behind a URL alike.

A checkpoint is whole where its manifest is. The manifest goes up last, and is
the first to be removed; a step without one is never downloaded. So a step
half uploaded, or half deleted, is never restored.

Of several processes each has a folder of its own, and in it a part of each
checkpoint. It uploads its part, and then a list of it, whose name only this
job knows; the first process writes the manifest when all lists are there.
"""

import contextlib
import dataclasses
import json
import logging
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from mmjax.core import errors, folders
from mmjax.train import manifest, step_files, stored

PROBE = ".mmjax-can-write"

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """Which of the processes of one job this is."""

  index: int = 0
  count: int = 1
  job: str = ""  # Differs in each: what one before it left doesn't count.


class Mirror:
  """A folder of this host, and the URL that it is a copy of.

  All of several processes read; the first one alone writes and deletes, but
  for the parts of checkpoints.
  """

  def __init__(self, url: str, folder: Path, part: Part | None = None):
    self._url, self._folder, self._part = url, folder, part or Part()
    self._system, self._root = folders.remote(url)
    # Size and time of each file when it was last the same on both sides.
    self._same: dict[str, tuple[int, int]] = {}
    self._halves: set[str] = set()  # Steps at the URL that are not whole.
    self.newest = -1  # The last step that was whole there when it was read.
    # Of the first process: steps whose own part is up, with the list of it,
    # and not yet those of all others.
    self._open: dict[str, str] = {}
    self._lock = threading.Lock()

  def check_writable(self) -> None:
    """Writes an empty file and deletes it.

    Raises:
      UserError: that failed.
    """
    with self._explained("be written to"):
      self.write_probe()
      self.remove_probe()

  def write_probe(self) -> None:
    """Writes a file from which other processes know this place."""
    with self._explained("be written to"):
      self._system.pipe_file(self._path(PROBE), self._part.job.encode())

  def remove_probe(self) -> None:
    """Deletes it."""
    with self._explained("be written to"):
      self._system.rm_file(self._path(PROBE))

  def check_probe(self) -> None:
    """Checks that this is the place where the first process wrote.

    This process has to be able to write there too.

    Raises:
      UserError: it isn't, or can't be read or written.
    """
    with self._explained("be read"):
      self._system.invalidate_cache()
      found = None
      with contextlib.suppress(FileNotFoundError):
        found = self._system.cat_file(self._path(PROBE)).decode()
    if found != self._part.job:
      raise errors.UserError(
        f"{self._url!r} is another place for process {self._part.index} than "
        "for process 0: what that one wrote is not there. Expected one store "
        "that all hosts reach, with the same endpoint and credentials."
      )
    with self._explained("be written to"):
      own = self._path(f"{PROBE}-{self._part.index}")
      self._system.pipe_file(own, b"")
      self._system.rm_file(own)

  def pull(self, step: int | str = step_files.ALL) -> None:
    """Downloads the folder, and of its checkpoints those that are asked for.

    Args:
      step: "all", "none", "latest", "best" (which needs all), or a number.

    Raises:
      UserError: it can't be read, or has no such step.
    """
    with self._explained("be read"):
      names = self._names()
      self._get(
        n
        for n in names
        if step_files.step_of(n) is None and not n.startswith(PROBE)
      )
      steps = {
        s for n in names if (s := step_files.step_of(n)) and s.isdecimal()
      }
      whole = {s for s in steps if step_files.manifest_of(s) in names}
      self._halves = steps - whole
      self.newest = max(map(int, whole), default=-1)
      for number in step_files.wanted(whole, step, self._url):
        self._get_step(number, names)
        if step == "latest" and not manifest.verify(self._local(number)):
          break

  def push(self) -> None:
    """Uploads what changed here; removes checkpoints that are gone here.

    Raises:
      Exception: what the file system raises; the next call goes on.
    """
    with self._lock:
      here = self._scan()
      changed = {n for n, s in here.items() if self._same.get(n) != s}
      if self._part.index == 0:
        self._put({n for n in changed if step_files.step_of(n) is None}, here)
      steps = {s for n in here if (s := step_files.whole(n))}
      new = {s for n in changed if (s := step_files.whole(n))}
      for step in sorted(new, key=int, reverse=True):
        try:
          self._put_step(step, here[step_files.manifest_of(step)])
        except FileNotFoundError:
          if manifest.exists(self._local(step)):
            raise
          self._halves.add(step)  # Deleted here meanwhile.
          _warn_late([step])
      if self._part.index == 0:
        _warn_late(self._open.keys() - steps)
        self._open = {s: t for s, t in self._open.items() if s in steps}
        closed = {s for s in list(self._open) if self._close(s)}
        self._remove_old(steps, closed)

  @property
  def waiting(self) -> list[str]:
    """To the first process: steps of which parts of others are missing."""
    return sorted(self._open, key=int)

  def _names(self) -> set[str]:
    """Files at the URL, relative to it."""
    self._system.invalidate_cache()
    start = len(self._root) + 1
    found = {n[start:] for n in self._system.find(self._root)}
    # No markers of folders, no halves.
    return {n for n in found if n and not n.endswith(("/", ".tmp"))}

  def _scan(self) -> dict[str, tuple[int, int]]:
    """Files here, half-written ones left out; of checkpoints, whole ones."""
    found = {}
    # The log is written before the step is saved: looked for after it, it is
    # never the older one at the URL.
    for in_step in (True, False):
      for folder, _, files in os.walk(self._folder):
        for path in (Path(folder) / f for f in files if not f.endswith(".tmp")):
          name = path.relative_to(self._folder).as_posix()
          step = step_files.step_of(name)
          if in_step == (step is not None) and (step or "0").isdecimal():
            with contextlib.suppress(FileNotFoundError):  # Deleted just now.
              found[name] = _stamp(path)
    return found

  def _get(self, names: Iterable[str]) -> None:
    names = sorted(names)
    for name in names:
      (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
    if names:
      self._system.get(
        [self._path(n) for n in names], [str(self._folder / n) for n in names]
      )
    for name in names:
      self._same[name] = _stamp(self._folder / name)

  def _get_step(self, step: str, names: set[str]) -> None:
    # What the manifest does not name may be of an upload that was cut off.
    name = step_files.manifest_of(step)
    self._get([name])
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
      files = json.loads((self._folder / name).read_text())["files"]
      # One that is missing is found by who reads the step.
      self._get({f"{step_files.CHECKPOINTS}/{step}/{f}" for f in files} & names)

  def _put(self, names, stamps):
    # Each in one piece, since some are written to meanwhile.
    pieces = {self._path(n): (self._folder / n).read_bytes() for n in names}
    self._write(pieces)
    self._same |= {n: stamps[n] for n in names}

  def _write(self, pieces):
    if getattr(self._system, "local_file", False):
      # Writes to a folder can end halfway, unlike those to a store.
      for path, piece in pieces.items():
        self._system.pipe_file(f"{path}.tmp", piece)
        self._system.mv(f"{path}.tmp", path)
    elif pieces:
      self._system.pipe(pieces)

  def _put_step(self, step, stamp):
    name, first = step_files.manifest_of(step), self._part.index == 0
    if name in self._same:  # Another step of this number, a damaged one.
      if first:
        self._remove_step(step)
      else:
        self._system.invalidate_cache()
        if not self._system.exists(self._list(step, 0)):
          return  # The first process has not removed it yet.
    text = (self._folder / name).read_text()
    listed = json.loads(text)["files"]
    if not first:
      listed = {f: e for f, e in listed.items() if step_files.is_piece(f)}
    files = [f"{step_files.CHECKPOINTS}/{step}/{f}" for f in listed]
    if files:
      self._system.put(
        [str(self._folder / f) for f in files], [self._path(f) for f in files]
      )
    text = manifest.text(listed)
    if self._part.count > 1:
      self._write({self._list(step, self._part.index): text.encode()})
    self._same[name] = stamp
    if first:
      self._open[step] = text

  def _close(self, step):
    """Writes the manifest if all parts are up; whether they are."""
    paths = [self._list(step, i) for i in range(1, self._part.count)]
    found = self._system.cat(paths, on_error="omit") if paths else {}
    if any(p not in found for p in paths):
      return False
    text = manifest.merged([self._open[step], *(found[p] for p in paths)])
    self._write({self._path(step_files.manifest_of(step)): text.encode()})
    del self._open[step]
    if paths:
      with contextlib.suppress(FileNotFoundError):
        parts = self._path(
          f"{step_files.CHECKPOINTS}/{step}/{step_files.PARTS}"
        )
        self._system.rm(parts, recursive=True)
    return True

  def _remove_old(self, steps, closed):
    """Removes what is gone here, once a newer step is whole there."""
    ours = {s for n in self._same if (s := step_files.whole(n))}
    newest = max(map(int, (ours & steps) - set(self._open)), default=-1)
    gone = {s for s in ours - steps if int(s) < newest}
    if closed:  # What an upload that was cut off left.
      newest = max(map(int, closed))
      gone |= {s for s in self._halves - steps if int(s) < newest}
      self._halves -= gone | closed
    for step in gone:
      self._remove_step(step)

  def _remove_step(self, step):
    """Removes a step at the URL; one that is damaged is renamed, as here."""
    folder = self._path(f"{step_files.CHECKPOINTS}/{step}")
    aside = f"{step_files.CHECKPOINTS}/damaged-{step}"
    with contextlib.suppress(FileNotFoundError):
      if (self._folder / aside).is_dir():
        self._system.mv(folder, self._path(aside), recursive=True)
      else:
        self._system.rm_file(self._path(step_files.manifest_of(step)))
    self._system.invalidate_cache()
    with contextlib.suppress(FileNotFoundError):
      self._system.rm(folder, recursive=True)
    self._system.invalidate_cache()
    self._same.pop(step_files.manifest_of(step), None)

  def _path(self, name):
    return f"{self._root}/{name}"

  def _list(self, step, index):
    """Where the list of a process's part of a step is."""
    name = f"{self._part.job}-{index}.json"
    return self._path(
      f"{step_files.CHECKPOINTS}/{step}/{step_files.PARTS}/{name}"
    )

  def _local(self, step):
    return self._folder / step_files.CHECKPOINTS / step

  @contextlib.contextmanager
  def _explained(self, what):
    try:
      yield
    except errors.UserError:
      raise
    except Exception as e:  # Each file system has errors of its own.
      raise errors.UserError(
        f"{self._url!r} cannot {what} ({type(e).__name__}: "
        f"{stored.first_line(e)}). Check the name, your credentials for it "
        "and the network."
      ) from e


def _warn_late(steps: Iterable[str]) -> None:
  for step in steps:
    log.warning(
      "Checkpoint %s was deleted here before all of it was up: uploading takes "
      "longer than it is kept. Save less often, or set a higher "
      "checkpoint.keep.",
      step,
    )


def _stamp(path: Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size
