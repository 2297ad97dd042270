"""Keeps a folder of this host and one behind a URL alike.

A checkpoint is whole where its manifest is. The manifest goes up last, and is
the first to be removed; a step without one is never downloaded. So a step
half uploaded, or half deleted, is never restored.
"""

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from pathlib import Path

from mmjax.core import errors, folders
from mmjax.train import manifest, stored

CHECKPOINTS = "checkpoints"
PROBE = ".mmjax-can-write"
ALL, NONE = "all", "none"  # Beside "latest", "best" and numbers: which steps.


class Mirror:
  """A folder of this host, and the URL that it is a copy of."""

  def __init__(self, url: str, folder: Path):
    self._url, self._folder = url, folder
    self._system, self._root = folders.remote(url)
    # Size and time of each file when it was last the same on both sides.
    self._same: dict[str, tuple[int, int]] = {}
    self._halves: set[str] = set()  # Steps at the URL that are not whole.
    self._lock = threading.Lock()

  def check_writable(self) -> None:
    """Writes an empty file and deletes it.

    Raises:
      UserError: that failed.
    """
    with self._explained("be written to"):
      self._system.pipe_file(self._path(PROBE), b"")
      self._system.rm_file(self._path(PROBE))

  def pull(self, step: int | str = ALL) -> None:
    """Downloads the folder, and of its checkpoints those that are asked for.

    Args:
      step: "all", "none", "latest", "best" (which needs all), or a number.

    Raises:
      UserError: it can't be read, or has no such step.
    """
    with self._explained("be read"):
      names = self._names()
      self._get(n for n in names if _step(n) is None and n != PROBE)
      steps = {s for n in names if (s := _step(n)) and s.isdecimal()}
      whole = {s for s in steps if _manifest(s) in names}
      self._halves = steps - whole
      for number in _wanted(whole, step, self._url):
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
      self._put({n for n in changed if _step(n) is None}, here)
      steps = {s for n in here if (s := _whole(n))}
      new = {s for n in changed if (s := _whole(n))}
      for step in sorted(new, key=int, reverse=True):
        try:
          self._put_step(step, here[_manifest(step)])
        except FileNotFoundError:
          if manifest.exists(self._local(step)):
            raise
          self._halves.add(step)  # Deleted here meanwhile.
      gone = {s for n in self._same if (s := _whole(n))} - steps
      if new:  # What an upload that was cut off left.
        gone |= self._halves - steps
        self._halves = set()
      for step in gone:
        self._remove_step(step)

  def _names(self) -> set[str]:
    """Files at the URL, relative to it."""
    self._system.invalidate_cache()
    start = len(self._root) + 1
    found = {n[start:] for n in self._system.find(self._root)}
    return {n for n in found if n and not n.endswith("/")}  # No markers.

  def _scan(self) -> dict[str, tuple[int, int]]:
    """Files here, half-written ones left out; of checkpoints, whole ones."""
    found = {}
    for folder, _, files in os.walk(self._folder):
      for path in (Path(folder) / f for f in files if not f.endswith(".tmp")):
        name = path.relative_to(self._folder).as_posix()
        if (_step(name) or "0").isdecimal():
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
    name = _manifest(step)
    self._get([name])
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
      files = json.loads((self._folder / name).read_text())["files"]
      # One that is missing is found by who reads the step.
      self._get({f"{CHECKPOINTS}/{step}/{f}" for f in files} & names)

  def _put(self, names, stamps):
    # Each in one piece, since some are written to meanwhile.
    pieces = {self._path(n): (self._folder / n).read_bytes() for n in names}
    if pieces:
      self._system.pipe(pieces)
    self._same |= {n: stamps[n] for n in names}

  def _put_step(self, step, stamp):
    name = _manifest(step)
    if name in self._same:  # Another step of this number, a damaged one.
      self._remove_step(step)
    text = (self._folder / name).read_bytes()
    files = [f"{CHECKPOINTS}/{step}/{f}" for f in json.loads(text)["files"]]
    self._system.put(
      [str(self._folder / f) for f in files], [self._path(f) for f in files]
    )
    self._system.pipe_file(self._path(name), text)
    self._same[name] = stamp

  def _remove_step(self, step):
    """Removes a step at the URL; one that is damaged is renamed, as here."""
    folder = self._path(f"{CHECKPOINTS}/{step}")
    aside = f"{CHECKPOINTS}/damaged-{step}"
    with contextlib.suppress(FileNotFoundError):
      if (self._folder / aside).is_dir():
        self._system.mv(folder, self._path(aside), recursive=True)
      else:
        self._system.rm_file(self._path(_manifest(step)))
    self._system.invalidate_cache()
    with contextlib.suppress(FileNotFoundError):
      self._system.rm(folder, recursive=True)
    self._system.invalidate_cache()
    self._same.pop(_manifest(step), None)

  def _path(self, name):
    return f"{self._root}/{name}"

  def _local(self, step):
    return self._folder / CHECKPOINTS / step

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


def _wanted(whole, step, url):
  """Names of steps, the newest first."""
  newest_first = sorted(whole, key=int, reverse=True)
  if step in (ALL, "best", "latest"):
    return newest_first
  if step == NONE or not whole:
    return []
  if str(step) not in whole:
    raise errors.UserError(
      f"No step {step!r} in {url!r}. Known: {newest_first[::-1]}, 'latest', "
      "'best'."
    )
  return [str(step)]


def _step(name: str) -> str | None:
  """The folder below a checkpoint folder that a file is in, if any."""
  parts = name.split("/")
  if CHECKPOINTS not in parts[:-1]:
    return None
  return parts[parts.index(CHECKPOINTS) + 1]


def _whole(name: str) -> str | None:
  """The step, if a file is its manifest."""
  step = _step(name)
  return step if step and name == _manifest(step) else None


def _manifest(step: str) -> str:
  return f"{CHECKPOINTS}/{step}/{manifest.FILE}"


def _stamp(path: Path) -> tuple[int, int]:
  found = path.stat()
  return found.st_mtime_ns, found.st_size
