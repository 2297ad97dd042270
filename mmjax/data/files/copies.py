"""Prepared data behind a URL: a copy on this host, made once.

The reader of shards reads local files. So what a split needs is downloaded
before training, into the user's cache, and stays there: the next run starts at
once, and processes on one host share it.
"""

import hashlib
import logging
import os
import shutil
from pathlib import Path

from mmjax.core import errors, folders

log = logging.getLogger(__name__)


def folder_of(url: str) -> Path:
  """Where the copy of a URL lies: $XDG_CACHE_HOME/mmjax/data/<hash>."""
  base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
  name = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16]
  return Path(base) / "mmjax" / "data" / name


def split_of(url: str, split: str, description: str) -> Path:
  """Downloads the description of all splits, and one split.

  Args:
    url: folder of the splits, or of one.
    split: its name.
    description: name of the file that each split has.

  Returns:
    The copy.

  Raises:
    UserError: it can't be read, or the disk is too small for it.
  """
  system, root = folders.remote(url)
  target = folder_of(url)
  try:
    # By a listing of one level each: a folder of pictures has millions.
    found = system.glob(f"{root}/{description}")
    found += system.glob(f"{root}/*/{description}")
    inside = root if f"{root}/{description}" in found else f"{root}/{split}"
    sizes = {}
    if f"{inside}/{description}" in found:
      sizes = system.find(inside, maxdepth=1, detail=True)
    wanted = {n: system.size(n) for n in found}
    wanted |= {n: entry["size"] for n, entry in sizes.items()}
    _download(system, root, wanted, target, url)
  except errors.UserError:
    raise
  except Exception as e:  # Each file system has errors of its own.
    raise errors.UserError(
      f"{url!r} cannot be copied to {str(target)!r} ({type(e).__name__}: {e})."
    ) from e
  return target


def has(url: str, description: str) -> bool:
  """Whether a URL is of prepared data, or of one split of them."""
  system, root = folders.remote(url)
  return any(system.glob(f"{root}/{d}{description}") for d in ("", "*/"))


def _download(system, root, wanted, target, url):
  def here(name):
    return target / name[len(root) + 1 :]

  missing = {
    name: size
    for name, size in wanted.items()
    if not here(name).is_file() or here(name).stat().st_size != size
  }
  if not missing:
    return
  target.mkdir(parents=True, exist_ok=True)
  total, free = sum(missing.values()), shutil.disk_usage(target).free
  if total > free:
    raise errors.UserError(
      f"{url!r} has {total / 2**30:.1f} GiB to copy, {str(target)!r} has "
      f"{free / 2**30:.1f} GiB free. Set XDG_CACHE_HOME to a larger disk, or "
      "mount the bucket."
    )
  log.warning("Copying %.2f GiB of %s to %s.", total / 2**30, url, target)
  for name in missing:
    path = here(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of one host may do so at once: the last one to be done wins.
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    system.get_file(name, str(partial))
    partial.replace(path)
