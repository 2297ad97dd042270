"""Where examples come from: random access to dicts of one example each.

A source returns text as str, pictures, clips and recordings as encoded bytes,
and named classes as their names. TFDS is imported here only, when one of its
data sets is opened.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, runtime_checkable

from mmjax.core import errors, registry
from mmjax.data import (
  conversations,
  easy_vqa,
  files,
  starter,
  starter_conversations,
  synthetic,
)

TFDS_PREFIX = "tfds:"


@runtime_checkable
class Source(Protocol):
  """Random access to examples; safe to read from several threads.

  May also have `class_names: Mapping[str, Sequence[str]]`: for a field that
  holds names of classes, all names in the order of their indices; and
  `splits: Mapping[str, int]`: the number of examples of each split; and
  `find_classes(field) -> Sequence[str]`: reads them from the data. A class
  given as "package.module:Class" is called with `split=` and `path=`.
  """

  def __len__(self) -> int: ...

  def __getitem__(self, index: SupportsIndex, /) -> Mapping[str, Any]: ...


class TfdsSource:
  """Reads one split of a prepared TFDS data set in ArrayRecord files.

  Without a split: "train" if there is one, else the first.
  """

  def __init__(
    self,
    builder: Any,
    split: str,
    class_names: Mapping[str, tuple[str, ...]] | None = None,
  ):
    import tensorflow_datasets as tfds

    self.splits = {
      name: info.num_examples for name, info in builder.info.splits.items()
    }
    if not split:
      split = "train" if "train" in self.splits else next(iter(self.splits))
    _check_split(builder.name, split, self.splits)
    self.split = split
    features = builder.info.features
    encoded = {
      name: tfds.decode.SkipDecoding()
      for name, feature in features.items()
      if isinstance(feature, tfds.features.Image)
    }
    try:
      self._records = builder.as_data_source(split, decoders=encoded or None)
    except (ValueError, NotImplementedError, OSError) as e:
      raise errors.UserError(
        f"Cannot read the split {split!r} of {str(builder.data_dir)!r}: {e} "
        "Expected ArrayRecord files as written by download_and_prepare("
        "file_format='array_record')."
      ) from e
    self._texts = [
      name
      for name, feature in features.items()
      if isinstance(feature, tfds.features.Text)
    ]
    self._classes = {
      name: tuple(feature.names)
      for name, feature in features.items()
      if isinstance(feature, tfds.features.ClassLabel) and feature.names
    }
    self.class_names = {**(class_names or {}), **self._classes}

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    record = dict(self._records[index.__index__()])
    for name in self._texts:
      record[name] = record[name].decode("utf-8")
    for name, names in self._classes.items():
      record[name] = names[int(record[name])]
    return record


def starter_emoji(*, split: str, path: str = "") -> TfdsSource:
  """Opens the pictures of the starter set, preparing them when needed."""
  return _starter("starter_emoji", split, path)


def starter_clips(*, split: str, path: str = "") -> TfdsSource:
  """Opens the animated clips of the starter set."""
  return _starter("starter_clips", split, path)


def starter_speech(*, split: str, path: str = "") -> TfdsSource:
  """Opens the recordings of the starter set."""
  return _starter("starter_speech", split, path)


def _starter(name: str, split: str, path: str) -> TfdsSource:
  from mmjax.data import builders

  table = name.removeprefix("starter_")
  _check_split(name, split, starter.SPLITS[table])
  columns = ("group", "subgroup", "artist") if table == "emoji" else ()
  if table == "clips":
    columns = ("group", "subgroup")
  # Clips get the classes of the pictures, so that one head serves both.
  names = {column: starter.class_names(column) for column in columns}
  return TfdsSource(builders.prepare(name, path), split, names)


def tfds_folder(name: str, *, split: str, path: str) -> TfdsSource:
  """Opens a prepared TFDS data set by name below `path`.

  `path` is the folder with `dataset_info.json`, or one above it, as in
  `<path>/<name>/<config>/<version>`. Of several versions, the newest.

  Raises:
    UserError: nothing of the kind there, or an unknown split.
  """
  import tensorflow_datasets as tfds

  folder = find_builder(name, path)
  try:
    builder = tfds.builder_from_directory(str(folder))
  except Exception as e:  # Whatever a damaged folder does to its parsers.
    raise errors.UserError(
      f"{str(folder)!r} is not a TFDS data set that can be read: "
      f"{type(e).__name__}: {e}"
    ) from e
  return TfdsSource(builder, split)


def find_builder(name: str, path: str) -> Path:
  """Returns the folder of a prepared TFDS data set.

  Args:
    name: of the data set, or "" to accept any that `path` itself holds.
    path: the folder with `dataset_info.json`, or one above it.

  Raises:
    UserError: no such folder.
  """
  expected = (
    "a folder written by TFDS, with dataset_info.json and *.array_record* "
    f"files in it or in {name or '<name>'}/[<config>/]<version>/ below it"
  )
  if not path:
    raise errors.UserError(
      f"The source '{TFDS_PREFIX}{name}' needs data.path: {expected}."
    )
  root = Path(path).expanduser()
  if not root.is_dir():
    raise errors.UserError(
      f"No folder at {str(root)!r} (data.path). Expected {expected}."
    )
  if (root / "dataset_info.json").is_file():
    return root
  below = root / name if name and (root / name).is_dir() else root
  found = [
    info.parent
    for pattern in ("*", "*/*", "*/*/*")
    for info in below.glob(f"{pattern}/dataset_info.json")
    if ".incomplete" not in str(info)
  ]
  if not found or (name and below == root and root.name != name):
    names = [child.name for child in root.iterdir() if child.is_dir()]
    raise errors.UserError(
      f"No data set {name!r} in {str(root)!r}.{errors.nearest(name, names)} "
      f"Expected {expected}; found the folders {sorted(names)[:10]}."
    )
  if not name:
    names = sorted({_name(folder) for folder in found})
    if len(names) > 1:
      raise errors.UserError(
        f"{str(root)!r} holds several data sets: {names}. Name the folder of "
        "one of them."
      )
  return max(found, key=_version)


def _name(folder: Path) -> str:
  try:
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))
    return str(info["name"])
  except (OSError, ValueError, KeyError, TypeError):
    return folder.name


def _version(folder: Path) -> tuple[tuple[int, ...], str]:
  parts = folder.name.split(".")
  numbers = tuple(int(p) for p in parts) if _are_numbers(parts) else ()
  return numbers, str(folder)


def _check_split(name: str, split: str, known: Iterable[str]) -> None:
  # "train[:10%]+test" is how TFDS writes slices and sums.
  for part in split.split("+"):
    base = part.partition("[")[0].strip()
    if base not in known:
      raise errors.unknown(f"split of {name}", base, known)


def _are_numbers(parts: Iterable[str]) -> bool:
  return all(part.isdigit() for part in parts)


SOURCES = {
  "arrow": files.KINDS["arrow"],
  "conversations": conversations.ConversationSource,
  "easy_vqa": easy_vqa.EasyVqaSource,
  "easy_vqa_conversations": starter_conversations.EasyVqaConversations,
  "files": files.open_files,
  "folder": files.KINDS["folder"],
  "manifest": files.KINDS["manifest"],
  "prepared": files.KINDS["prepared"],
  "starter_clips": starter_clips,
  "starter_conversations": starter_conversations.StarterConversations,
  "starter_emoji": starter_emoji,
  "starter_speech": starter_speech,
  "synthetic": synthetic.SyntheticSource,
  "tar": files.KINDS["tar"],
}


def open_source(
  name: str,
  *,
  split: str,
  path: str = "",
  columns: Mapping[str, str] | None = None,
) -> Source:
  """Opens one split of a source.

  Args:
    name: one of `SOURCES`, "tfds:NAME" or "package.module:Class".
    split: name of the split; TFDS slices such as "train[:10%]" work too.
    path: where the data lie; each source says what it expects there.
    columns: field -> column, of tables; see `mmjax.data.files.manifest`.

  Raises:
    UserError: unknown name or split, missing or empty data, or columns of
      what is no table.
  """
  if name.startswith(TFDS_PREFIX):
    name_only = name.removeprefix(TFDS_PREFIX)
    source = tfds_folder(name_only, split=split, path=path)
  else:
    if ":" not in name and name not in SOURCES:
      known = [*SOURCES, "tfds:NAME", "package.module:Class"]
      raise errors.unknown("source", name, known)
    factory = registry.lookup("source", name, SOURCES)
    named = {"columns": columns} if columns else {}
    if named and "columns" not in (registry.field_names(factory) or ()):
      raise errors.UserError(
        f"data.columns={dict(columns or {})}: the source {name!r} has fields "
        "of its own. Columns are for 'files' and 'manifest'."
      )
    source = factory(split=split, path=path, **named)
  if not isinstance(source, Source):
    raise errors.UserError(
      f"The source {name!r} is a {type(source).__name__} without __len__ and "
      "__getitem__."
    )
  if len(source) == 0:
    raise errors.UserError(
      f"The split {split!r} of the source {name!r} has no examples."
    )
  return source
