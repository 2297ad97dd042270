"""A folder of pictures, clips or recordings, with texts beside them.

  pets/
    train/                 a split; without such folders all is "train"
      cat/                 a class, if you like: the field `folder`
        001.jpg            the field `image`
        001.txt            `text`: a caption, or one a line
        001.json           more fields

Files of one name make one example. `audio` and `video` come from the endings
of their kind, see `media.FIELDS`.
"""

from collections.abc import Mapping
from typing import Any, SupportsIndex

from mmjax.core import errors
from mmjax.data.files import media, storage

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "dev", "test")


class FolderSource:
  """One example per name; `key` is the name, `folder` the folder around it.

  Raises:
    UserError: no such folder, nothing in it to read, or two files that make
      the same field of one example.
  """

  def __init__(self, *, split: str, path: str = ""):
    root = storage.expand(path)
    if not path or not storage.is_folder(root):
      raise errors.UserError(
        f"No folder at {path!r} (data.path). Expected one with pictures, "
        "recordings or clips, and texts of the same names beside them."
      )
    root = _split_folder(root, split)
    groups: dict[str, dict[str, str]] = {}
    for file in storage.files_below(root):
      stem, ending = media.split_name(file)
      if ending.rpartition(".")[2] in media.FIELDS:
        groups.setdefault(stem, {})[ending] = file
    with_media = {k: v for k, v in groups.items() if any(map(_is_media, v))}
    # Texts alone are examples only where there is nothing else.
    groups = with_media or groups
    if not groups:
      raise errors.UserError(
        f"Nothing to read in {root!r}: expected files that end in "
        f"{sorted(media.FIELDS)}."
      )
    self._examples = [groups[stem] for stem in sorted(groups)]
    start = len(root.rstrip("/")) + 1
    self._keys = [stem[start:] for stem in sorted(groups)]
    for key, files in zip(self._keys, self._examples, strict=True):
      _check_distinct(key, files)
    folders = sorted({_folder(key) for key in self._keys} - {""})
    self.class_names = {"folder": tuple(folders)} if folders else {}

  def __len__(self) -> int:
    return len(self._examples)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    key = self._keys[index]
    example: dict[str, Any] = {"key": key}
    if self.class_names:
      example["folder"] = _folder(key)
    for ending, file in sorted(self._examples[index].items()):
      example |= media.fields_of(ending, storage.File(file).read())
    return example


def _is_media(ending: str) -> bool:
  return media.FIELDS[ending.rpartition(".")[2]] in media.MEDIA


def _folder(key: str) -> str:
  return key.rpartition("/")[0].rpartition("/")[2]


def _check_distinct(key: str, files: Mapping[str, str]) -> None:
  made: dict[str, str] = {}
  for ending, file in files.items():
    word, _, last = ending.rpartition(".")
    field = word or media.FIELDS[last]
    if field in made:
      raise errors.UserError(
        f"{made[field]!r} and {file!r} both make the field {field!r} of the "
        f"example {key!r}. Keep one, or give them different names."
      )
    if field:
      made[field] = file


def _split_folder(root: str, split: str) -> str:
  """The folder of a split; all of it is "train" if there are no splits."""
  inside = storage.join(root, split) if split else root
  if split and storage.is_folder(inside):
    return inside
  known = [n for n in SPLIT_NAMES if storage.is_folder(storage.join(root, n))]
  if split in ("", "train") and not known:
    return root
  if known:
    raise errors.unknown(f"split of {root!r}", split, known)
  raise errors.UserError(
    f"{root!r} has no folder {split!r}: without folders of splits all of it is "
    "'train'. Set data.split='train', or move examples into such a folder."
  )
