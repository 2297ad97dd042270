"""Folders that runs write to: local ones, for now."""

import os
from pathlib import Path
from urllib import parse

from mmjax.core import errors


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
    f"{text!r}: runs are written to folders, not to {scheme}:// URLs. Mount "
    "it on each host (gcsfuse, mountpoint-s3, NFS) and give the folder; data "
    "may be read from URLs."
  )
