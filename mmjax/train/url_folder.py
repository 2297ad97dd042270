"""The folder of a run behind a URL: gs://, s3://, whatever `fsspec` opens.

A run works in a folder of this host, as ever: files are appended to, renamed
and moved there, which an object store cannot do. What it writes is uploaded
while it goes on, and when it ends; see `mirror`. The URL is what counts: each
verb begins with a fresh copy of what it needs, and takes it away at its end.
"""

import atexit
import contextlib
import functools
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from mmjax.core import errors, folders
from mmjax.train import stored
from mmjax.train.mirror import Mirror

EVERY_SECS = 30.0  # What a host that dies may lose, beside the upload's time.

log = logging.getLogger(__name__)


@contextlib.contextmanager
def opened(address: str, step: int | str = "all") -> Iterator[Path]:
  """A folder to work in; if it is behind a URL, changes are uploaded.

  Args:
    address: a path or URL.
    step: which checkpoints to download, see `Mirror.pull`.

  Raises:
    UserError: it can't be read or written; or, at the end, what was made can't
      be uploaded: it stays in the folder that is named.
  """
  if not folders.is_url(address):
    yield folders.local(address)
    return
  base, folder = _new_folder(address)
  problem = ""
  try:
    with _named(folder, address):
      mirror = Mirror(address, folder)
      mirror.check_writable()
      mirror.pull(step)
      try:
        with _watched(mirror):
          yield folder
      except BaseException:
        if problem := _last_push(mirror):
          log.error("%s %s has what was made.", problem, folder)
        raise
      problem = _last_push(mirror)
  finally:
    if not problem:
      shutil.rmtree(base, ignore_errors=True)
  if problem:
    raise errors.UserError(
      f"{address!r}: {problem} {folder} has what was made."
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
  base, folder = _new_folder(address)
  atexit.register(shutil.rmtree, base, ignore_errors=True)
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


def _last_push(mirror):
  """Pushes; what went wrong, or ""."""
  try:
    mirror.push()
  except Exception as e:  # Each file system has errors of its own.
    return f"The last upload failed ({_text(e)})."
  return ""


def _text(e):
  return f"{type(e).__name__}: {stored.first_line(e)}"


def _new_folder(address):
  """A temporary folder, and one in it whose path ends as the address does."""
  base = Path(tempfile.mkdtemp(prefix="mmjax-"))
  parts = address.partition("://")[2].split("/")
  folder = base.joinpath(*(p for p in parts if p not in ("", ".", "..")))
  folder.mkdir(parents=True, exist_ok=True)
  return base, folder
