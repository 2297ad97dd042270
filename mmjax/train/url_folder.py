"""The folder of a run behind a URL: gs://, s3://, whatever `fsspec` opens.

A run works in a folder of this host, as ever: files are appended to, renamed
and moved there, which an object store cannot do. What it writes is uploaded
while it goes on, and when it ends; see `mirror`. The URL is what counts: each
verb begins with a fresh copy of what it needs, and takes it away at its end.
Of several processes each has its own copy.
"""

import atexit
import contextlib
import functools
import logging
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from mmjax.core import errors, folders
from mmjax.train import leftovers, stored
from mmjax.train.mirror import Mirror, Part

EVERY_SECS = 30.0  # What a host that dies may lose, beside the upload's time.

log = logging.getLogger(__name__)


@runtime_checkable
class Peers(Protocol):
  """The processes that work behind one URL together."""

  @property
  def index(self) -> int:
    """Which of them this is."""

  def gather(self, text: str) -> list[str]:
    """The texts of all, in their order; each has to call it."""


@contextlib.contextmanager
def opened(
  address: str, step: int | str = "all", peers: Peers | None = None
) -> Iterator[Path]:
  """A folder to work in; if it is behind a URL, changes are uploaded.

  Args:
    address: a path or URL.
    step: which checkpoints to download, see `Mirror.pull`.
    peers: several processes, all of which call this with the same address. At
      the end each waits until all is up.

  Raises:
    UserError: it can't be read or written; or, at the end, what was made can't
      be uploaded: it stays in the folder that is named.
  """
  if not folders.is_url(address):
    yield folders.local(address)
    return
  problem = ""
  with leftovers.owned(address) as base:
    folder = _below(base, address)
    try:
      with _named(folder, address):
        mirror = _pulled(address, folder, step, peers)
        leftovers.clear(address, mirror.newest)
        try:
          with _watched(mirror):
            yield folder
        except BaseException:
          if problem := _last_push(mirror):
            log.error("%s %s has what was made.", problem, folder)
          raise
        problem = (
          _last_push(mirror) if peers is None else _finish(mirror, peers)
        )
    finally:
      if problem:
        leftovers.keep(base)
      else:
        shutil.rmtree(base, ignore_errors=True)
  if problem:
    whose = "" if peers is None else f"process {peers.index}'s part of "
    raise errors.UserError(
      f"{address!r}: {problem} {folder} has {whose}what was made."
    )


@functools.cache
def fetched(address: str, step: int | str = "latest") -> Path:
  """A folder to read, downloaded once per process if it is behind a URL.

  Args:
    address: a path or URL; "~" is the home.
    step: which checkpoints to download, see `Mirror.pull`.

  Raises:
    UserError: it can't be read, or has no such step.
  """
  if not folders.is_url(address):
    return folders.local(address).expanduser()
  stack = contextlib.ExitStack()
  base = stack.enter_context(leftovers.owned(address))
  atexit.register(stack.close)
  atexit.register(shutil.rmtree, base, ignore_errors=True)
  folder = _below(base, address)
  Mirror(address, folder).pull(step)
  return folder


@contextlib.contextmanager
def _named(folder, address):
  """Names the address where an error names the copy, unknown to the user."""
  try:
    yield
  except errors.UserError as e:
    e.args = tuple(str(a).replace(str(folder), address) for a in e.args)
    raise


@contextlib.contextmanager
def _watched(mirror):
  """Pushes from time to time."""
  done = threading.Event()

  def watch():
    while not done.wait(EVERY_SECS):
      try:
        mirror.push()
      except Exception as e:  # Tried again soon; the last time, it counts.
        log.warning("Upload: %s", _text(e))

  thread = threading.Thread(target=watch, name="upload", daemon=True)
  thread.start()
  try:
    yield
  finally:
    done.set()
    thread.join()


def _pulled(address, folder, step, peers):
  """The mirror of a new folder, filled; the place is writable."""
  if peers is None:
    mirror = Mirror(address, folder)
    mirror.check_writable()
    mirror.pull(step)
    return mirror
  jobs = peers.gather(secrets.token_hex(8))
  part = Part(index=peers.index, count=len(jobs), job=jobs[0])
  mirror = Mirror(address, folder, part)
  if peers.index == 0:
    mirror.write_probe()
  peers.gather("")
  mirror.check_probe()
  # Which steps are kept there is decided by the first alone.
  mirror.pull("latest" if step == "all" and peers.index > 0 else step)
  peers.gather("")
  if peers.index == 0:
    mirror.remove_probe()
  return mirror


def _finish(mirror, peers):
  """Pushes until all parts are up; what went wrong in any process, or ""."""
  # First parts; those that waited for a damaged step to be removed; manifests.
  for _ in range(3):
    problems = peers.gather(_last_push(mirror))
    if bad := [(i, text) for i, text in enumerate(problems) if text]:
      (index, text), *others = bad
      more = f" (And {len(others)} other processes.)" if others else ""
      return f"Process {index}: {text}{more}"
  missing = peers.gather(", ".join(mirror.waiting))[0]
  return f"Parts of the steps {missing} are missing there." if missing else ""


def _last_push(mirror):
  """Pushes; what went wrong, or ""."""
  try:
    mirror.push()
  except Exception as e:  # Each file system has errors of its own.
    return f"The last upload failed ({_text(e)})."
  return ""


def _text(e):
  return f"{type(e).__name__}: {stored.first_line(e)}"


def _below(base, address):
  """A folder in it whose path ends as the address does."""
  parts = address.partition("://")[2].split("/")
  folder = base.joinpath(*(p for p in parts if p not in ("", ".", "..")))
  folder.mkdir(parents=True, exist_ok=True)
  return folder
