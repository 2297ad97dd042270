"""Sources from files as users have them: no builder, no TensorFlow.

  folder.py    pictures, clips or recordings with texts beside them
  manifest.py  a table with a row per example: JSON Lines, CSV, TSV, Parquet
  tar.py       WebDataset tar shards
  arrow.py     a data set of Hugging Face `datasets`, saved to disk
  prepared.py  what `mmjax data prepare` wrote; records.py, one example of it
  media.py     which field a file makes, by its ending
  storage.py   local files and URLs
  lines.py, parquet.py   rows of tables by number

Each is random access, so that the order of a run is a function of (seed,
epoch, index). `data.source="files"` finds out which of them a path is.
"""

import re
from collections.abc import Mapping

from mmjax.core import errors
from mmjax.data.files import arrow, folder, manifest, prepared, storage, tar

KINDS = {
  "arrow": arrow.ArrowSource,
  "folder": folder.FolderSource,
  "manifest": manifest.ManifestSource,
  "prepared": prepared.PreparedSource,
  "tar": tar.TarSource,
}


def is_pattern(path: str) -> bool:
  """Whether a path is a URL, or stands for several files."""
  return storage.is_url(path) or bool(tar.BRACES.search(path))


def kind_of(path: str, split: str = "") -> str:
  """Which of `KINDS` reads a path.

  Raises:
    UserError: nothing there.
  """
  root = storage.expand(path)
  if not path or not (tar.BRACES.search(root) or storage.exists(root)):
    raise errors.UserError(
      f"Nothing at {path!r} (data.path). Expected a folder of pictures, clips "
      f"or recordings, a table ({', '.join(manifest.ENDINGS)}), tar shards, or "
      "a data set that Hugging Face `datasets` saved."
    )
  if tar.BRACES.search(root) or not storage.is_folder(root):
    return "tar" if root.endswith((".tar", ".tgz", ".gz")) else "manifest"
  if prepared.is_prepared(root):
    return "prepared"
  names = [f.rpartition("/")[2] for f in storage.files_below(root, deep=False)]
  if {arrow.STATE, arrow.DICT} & set(names):
    return "arrow"
  tables = "|".join(manifest.ENDINGS)
  wanted = re.escape(split) if split else "train|metadata"
  if any(re.fullmatch(rf"({wanted}|metadata)\.({tables})", n) for n in names):
    return "manifest"
  inside = storage.join(root, split) if split else root
  if storage.is_folder(inside):
    below = storage.files_below(inside, deep=False)
    names += [f.rpartition("/")[2] for f in below]
  return "tar" if any(n.endswith(".tar") for n in names) else "folder"


def open_files(
  *, split: str, path: str = "", columns: Mapping[str, str] | None = None
):
  """Opens whatever a path holds, see `KINDS`.

  Raises:
    UserError: nothing that can be read, or columns of what is no table.
  """
  kind = kind_of(path, split)
  if kind == "manifest":
    return manifest.ManifestSource(split=split, path=path, columns=columns)
  if columns:
    raise errors.UserError(
      f"data.columns={dict(columns)} is for tables; {path!r} is read as "
      f"{kind!r}, whose fields the names of its files say."
    )
  return KINDS[kind](split=split, path=path)
