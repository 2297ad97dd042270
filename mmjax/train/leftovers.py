"""Copies of runs in $TMPDIR: whose process was killed, the next one clears."""

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mmjax.train import manifest, step_files

PREFIX = "mmjax-"
OWNER = "owner"  # Locked while its process lives; says of which URL it is.

log = logging.getLogger(__name__)


@contextlib.contextmanager
def owned(address: str) -> Iterator[Path]:
  """A new temporary folder, for others to see whose it is and that it is used.

  Who asked for it removes it.
  """
  base = Path(tempfile.mkdtemp(prefix=PREFIX))
  with (base / OWNER).open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write(address)
    file.flush()
    yield base


def keep(base: Path) -> None:
  """So that no later run removes a folder."""
  (base / OWNER).unlink(missing_ok=True)


def clear(address: str, newest: int) -> None:
  """Removes what killed processes of this host left of a URL.

  Args:
    address: the URL.
    newest: the newest step that is whole there. A folder with a newer one is
      kept, and named.
  """
  for base in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
    if not _was_left(base / OWNER, address):
      continue
    step = _newest(base)
    if step > newest:
      log.warning(
        "%s has step %d of %s, which was not uploaded when its process ended. "
        "Remove it if you don't need it.",
        *(base, step, address),
      )
    else:
      shutil.rmtree(base, ignore_errors=True)


def _was_left(owner, address):
  try:
    with owner.open() as file:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # Else it is used.
      return file.read() == address
  except OSError:
    return False  # Not ours, of another user, or gone just now.


def _newest(base):
  steps = (
    Path(folder)
    for folder, _, _ in os.walk(base)
    if Path(folder).parent.name == step_files.CHECKPOINTS
  )
  whole = (p for p in steps if p.name.isdecimal() and manifest.exists(p))
  return max((int(p.name) for p in whole), default=-1)
