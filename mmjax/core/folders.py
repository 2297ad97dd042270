"""Folders that runs lie in: paths, `file://` URLs, and what `fsspec` opens."""

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any
from urllib import parse

from mmjax.core import errors

INSTALL = "pip install 'mmjax[cloud]'"
# Said by name: the file system that `fsspec` would say to install alone is in
# the extra.
CLOUD = ("gs", "gcs", "s3", "s3a")


def is_url(address: str | os.PathLike[str]) -> bool:
  """Whether an address is no path, nor a `file://` URL of one."""
  scheme, separator, _ = os.fspath(address).partition("://")
  return bool(separator) and scheme != "file"


def local(address: str | os.PathLike[str]) -> Path:
  """The local folder of a path or a `file://` URL.

  Raises:
    UserError: another kind of URL. As a path, "gs://bucket/run" would be a
      new folder named "gs:" on this host.
  """
  text = os.fspath(address)
  scheme, separator, _ = text.partition("://")
  if not separator:
    return Path(text)
  parts = parse.urlsplit(text)
  if scheme == "file" and parts.netloc in ("", "localhost"):
    return Path(parse.unquote(parts.path))
  raise errors.UserError(
    f"{text!r}: expected a folder of this host here, not a {scheme}:// URL. "
    "Mount it (gcsfuse, mountpoint-s3, NFS) and give the folder."
  )


def remote(url: str) -> tuple[Any, str]:
  """The `fsspec` file system of a URL, and its path in that system.

  Raises:
    UserError: nothing opens such a URL, or the package for it is missing.
  """
  import fsspec

  scheme = url.partition("://")[0]
  try:
    system, root = fsspec.core.url_to_fs(url)
  except ImportError as e:
    how = INSTALL if scheme in CLOUD else str(e)
    raise errors.UserError(
      f"{url!r}: the package for {scheme}:// is not installed: {how}."
    ) from e
  except ValueError as e:
    raise errors.UserError(
      f"Nothing opens {url!r} ({e}). Expected a folder, file://, gs://, s3:// "
      "or another URL that fsspec knows."
    ) from e
  root = root.rstrip("/")
  if not root.strip("/"):
    raise errors.UserError(f"{url!r} names no folder: expected {url}.../run.")
  return system, root


@functools.cache
def file(address: str) -> Path:
  """A file to read, downloaded once per process if it is behind a URL.

  Raises:
    UserError: it can't be downloaded.
  """
  if not is_url(address):
    return local(address).expanduser()
  system, source = remote(address)
  base = tempfile.mkdtemp(prefix="mmjax-")
  atexit.register(shutil.rmtree, base, ignore_errors=True)
  target = Path(base) / source.rpartition("/")[2]
  try:
    system.get_file(source, str(target))
  except Exception as e:  # Each file system has errors of its own.
    raise errors.UserError(
      f"{address!r} cannot be read ({type(e).__name__}: {e})."
    ) from e
  return target
