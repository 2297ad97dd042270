"""Checksums of a checkpoint folder, which Orbax does not keep.

A byte that flips on disk restores as wrong numbers without an error; so each
committed step gets a list of its files with size and SHA-256.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmjax.core import errors

FILE = "manifest.json"
VERSION = 1


def write(folder: Path, part: str = "") -> Path:
  """Lists all files of `folder` in `folder/manifest.json`, atomically.

  Either the whole manifest is there afterwards, or none.

  Args:
    folder: of one step.
    part: "1 of 2", if others have the rest of the step: `verify` says so.
  """
  files = {
    path.relative_to(folder).as_posix(): {
      "size": path.stat().st_size,
      "sha256": _sha256(path),
    }
    for path in sorted(folder.rglob("*"))
    if path.is_file() and not _is_manifest(path, folder)
  }
  target = folder / FILE
  partial = folder / f"{FILE}.tmp"
  with partial.open("w") as f:
    f.write(text(files, part))
    f.flush()
    os.fsync(f.fileno())
  os.replace(partial, target)
  _sync_folder(folder)
  return target


def text(files: Mapping[str, Any], part: str = "") -> str:
  """What is in a manifest of these files."""
  named = {"part": part} if part else {}
  return json.dumps({"version": VERSION, **named, "files": files}, indent=1)


def merged(texts: Iterable[str | bytes]) -> str:
  """One manifest of the files of several, which lie in one folder."""
  files: dict[str, Any] = {}
  for part in texts:
    files |= json.loads(part)["files"]
  return text(dict(sorted(files.items())))


def exists(folder: Path) -> bool:
  """Whether the folder has a manifest, good or not."""
  return (folder / FILE).is_file()


def verify(folder: Path, under: str = "") -> list[str]:
  """Says what is wrong with the files of the manifest; [] if nothing.

  Files that the manifest does not name are no problem: nothing reads them.

  Args:
    folder: of one step.
    under: looks only at files whose names begin so, e.g. "meta/".

  Raises:
    UserError: the folder has no manifest.
  """
  if not exists(folder):
    raise errors.UserError(f"{str(folder)!r} has no {FILE}.")
  try:
    content = json.loads((folder / FILE).read_text())
    expected = {
      name: (entry["size"], entry["sha256"])
      for name, entry in content["files"].items()
      if name.startswith(under)
    }
  except (ValueError, KeyError, TypeError, AttributeError) as e:
    return [f"{FILE}: not readable ({type(e).__name__}: {e})"]
  problems = []
  if not under and content.get("part"):
    problems.append(f"{FILE}: only part {content['part']} of the step")
  for name, (size, digest) in expected.items():
    path = folder / name
    if not path.is_file():
      problems.append(f"{name}: missing")
    elif path.stat().st_size != size:
      problems.append(f"{name}: {path.stat().st_size} bytes, expected {size}")
    elif _sha256(path) != digest:
      problems.append(f"{name}: content differs (SHA-256)")
  return problems


def _is_manifest(path, folder):
  return path.parent == folder and path.name in (FILE, f"{FILE}.tmp")


def _sha256(path):
  with path.open("rb") as f:
    return hashlib.file_digest(f, "sha256").hexdigest()


def _sync_folder(folder):
  descriptor = os.open(folder, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
