"""Codes of a tokenizer, written once and read with the examples.

`<dir>/<split>/` holds, for each example in the order of the source, the codes
of what is made of it in evaluation, in ArrayRecord files:

  codes-00000-of-00003.array_record   n little-endian uint16 (int32 if more
                                      than 65,536 codes) a record
  features.json                       `Features`; written last: without it the
                                      codes are not whole

While they are being written, `progress.json` is in its place; a file appears
under its name when it is whole. So a writer that was killed goes on.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, SupportsIndex
from urllib import parse

import numpy as np
from jaxtyping import Int

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data.sources import Source

FEATURES, PROGRESS = "features.json", "progress.json"
SHARD_EXAMPLES = 4096
# Settings of transforms that change nothing of what is made in evaluation.
AUGMENTATION = (
  "crop_scale",
  "crop_ratio",
  "flip",
  "side_words",
  "rand_augment",
  "color_jitter",
  "hue_jitter",
  "blur",
  "gain_db",
  "shift_secs",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
  """What cached codes are of, and whose."""

  modality: str
  tokenizer: str  # Id (hash) of the tokenizer.
  num_codes: int
  num_tokens: int  # Codes an example.
  length: int  # Examples.
  source: str
  split: str
  view: Mapping[str, Any]  # Of the transform, see `view`.
  # An example and the hash of what is made of it: two sources may share a name.
  first_index: int
  first_hash: str

  @property
  def dtype(self) -> str:
    """Of the records."""
    return "<u2" if self.num_codes <= 2**16 else "<i4"


def view(transforms: Iterable[Any], modality: str) -> dict[str, Any]:
  """The settings on which the codes of a modality depend.

  Raises:
    UserError: the data have no such field, or not the same for each epoch.
  """
  for transform in _flat(transforms):
    if modality not in transform.specs() or not hasattr(transform, "fixed"):
      continue
    if not transform.fixed:
      raise errors.UserError(
        f"Codes can be cached only of what is the same in each epoch; "
        f"config.data.{modality} changes it at random. "
        + FIX[modality].format(modality)
      )
    settings = dataclasses.asdict(transform)
    kept = {k: v for k, v in settings.items() if k not in AUGMENTATION}
    return json.loads(json.dumps(kept))
  raise errors.UserError(
    f"The data have no {modality!r} of which codes can be cached: set "
    f"config.data.{modality}; of bags of patches they cannot be."
  )


_PIXELS = (
  "Set config.data.{0}.crop_scale=(1.0, 1.0), and leave flip, color_jitter, "
  "hue_jitter and blur out"
)
FIX = {
  "image": _PIXELS + ".",
  "video": _PIXELS + "; strategy has to be 'uniform'.",
  "audio": "Set config.data.{0}.gain_db and shift_secs to 0.",
}


def _flat(transforms: Iterable[Any]) -> Iterator[Any]:
  for transform in transforms:
    yield from getattr(transform, "transforms", (transform,))


def content_hash(value: np.ndarray) -> str:
  """Hash of an array's values."""
  return hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:16]


def folder_of(path: str, split: str) -> Path:
  """Where the codes of a split lie; a split may be "train[:10%]"."""
  return Path(path).expanduser() / (parse.quote(split, safe="") or "default")


class CachedCodes:
  """Random access to the codes of a split.

  Raises:
    UserError: there are none, or they are not whole.
  """

  def __init__(self, path: str, split: str):
    from array_record.python import array_record_data_source

    folder = folder_of(path, split)
    self.features = _read(folder / FEATURES)
    if self.features is None:
      begun = (folder / PROGRESS).is_file()
      splits = sorted(
        parse.unquote(f.parent.name)
        for f in Path(path).expanduser().glob(f"*/{FEATURES}")
      )
      raise errors.UserError(
        f"{'Only a part of the' if begun else 'No'} codes of split {split!r} "
        f"in {path!r} (data.codes.path); it has {splits}. Write them with "
        f"`mmjax data tokens --split={split} --out={path}`, or set "
        "data.codes=None (of an evaluator: its own), which needs the tokenizer."
      )
    self._records = array_record_data_source.ArrayRecordDataSource(
      [str(p) for p in _shards(folder, self.features.length)]
    )

  def __len__(self) -> int:
    return self.features.length

  def __getitem__(self, index: int) -> Int[np.ndarray, " n"]:
    codes = np.frombuffer(self._records[index], self.features.dtype)
    return codes.astype(np.int32)


class WithCodes:
  """A source whose examples also hold their codes."""

  def __init__(self, source: Source, codes: CachedCodes):
    self._source = source
    self._codes = codes
    self._field = f"{codes.features.modality}_codes"
    for name in ("class_names", "splits"):
      if hasattr(source, name):
        setattr(self, name, getattr(source, name))

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: SupportsIndex, /) -> Mapping[str, Any]:
    codes = self._codes[index.__index__()]
    return {**self._source[index], self._field: codes}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CodesField:
  """Declares `<modality>_codes`, which `WithCodes` has put there."""

  features: Features

  def specs(self) -> dict[str, FieldSpec]:
    spec = FieldSpec(
      (self.features.num_tokens,), "int32", "n", "cached codes, by token"
    )
    return {f"{self.features.modality}_codes": spec}

  def facts(self) -> dict[str, Any]:
    """What the model has to agree with."""
    name = f"{self.features.modality}_codes"
    return {
      f"{name}_number": self.features.num_codes,
      f"{name}_tokenizer": self.features.tokenizer,
    }

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> Mapping[str, Any]:
    del rng, train
    return example


def open_codes(
  path: str,
  source: Source,
  transforms: Iterable[Any],
  *,
  name: str,
  split: str,
) -> tuple[WithCodes, CodesField]:
  """A source with its codes, and the field that they make.

  Raises:
    UserError: no codes of this split, or those of something else.
  """
  codes = CachedCodes(path, split)
  features = codes.features
  here = {"source": name, "split": split, "length": len(source)}
  here |= view(transforms, features.modality)
  there = {k: getattr(features, k) for k in ("source", "split", "length")}
  there |= features.view
  changed = [
    f"  {key}: {there.get(key)} -> {here.get(key)}"
    for key in sorted(here.keys() | there.keys())
    if here.get(key) != there.get(key)
  ]
  if changed:
    raise errors.UserError(
      f"The codes in {path!r} (data.codes.path) are of other data:\n"
      + "\n".join(changed)
      + "\nWrite them again with `mmjax data tokens`."
    )
  return WithCodes(source, codes), CodesField(features=features)


def check_first(features: Features, pipeline: Any) -> None:
  """Checks that an example is what its codes were computed from.

  Raises:
    UserError: it is something else.
  """
  example = pipeline.example(features.first_index, 0, 0, train=False)
  if content_hash(example[features.modality]) != features.first_hash:
    raise errors.UserError(
      f"Example {features.first_index} of {features.source!r}, split "
      f"{features.split!r}, is not the one that its codes (data.codes.path) "
      "were computed from: the data have changed since. Write them again with "
      "`mmjax data tokens`."
    )


def write(
  path: str,
  features: Features,
  codes_of: Callable[[int, int], Int[np.ndarray, "e n"]],
) -> Path:
  """Writes the codes of a split, but for files that are there already.

  Args:
    path: of all splits.
    features: what they are of.
    codes_of: (first, last + 1) -> the codes of these examples.

  Raises:
    UserError: there are codes of something else.
  """
  from array_record.python import array_record_module

  folder = folder_of(path, features.split)
  _begin(folder, features)
  for number, shard in enumerate(_shards(folder, features.length)):
    if shard.is_file():
      continue
    start = number * SHARD_EXAMPLES
    rows = codes_of(start, min(start + SHARD_EXAMPLES, features.length))
    temporary = shard.with_suffix(".tmp")
    writer = array_record_module.ArrayRecordWriter(
      str(temporary), "group_size:1"
    )
    for row in rows:
      writer.write(row.astype(features.dtype).tobytes())
    writer.close()
    temporary.replace(shard)
  if (folder / PROGRESS).is_file():
    (folder / PROGRESS).replace(folder / FEATURES)
  return folder


def _begin(folder: Path, features: Features) -> None:
  """Says what is being written; files of an earlier try are kept."""
  for name in (FEATURES, PROGRESS):
    there = _read(folder / name)
    if there == features:
      return
    if there is not None:
      raise errors.UserError(
        f"{str(folder)!r} has codes of something else, those of the tokenizer "
        f"{there.tokenizer} (now {features.tokenizer}), source "
        f"{there.source!r}. Choose another --out, or remove that folder."
      )
  folder.mkdir(parents=True, exist_ok=True)
  temporary = folder / f"{PROGRESS}.tmp"
  temporary.write_text(json.dumps(dataclasses.asdict(features), indent=2))
  temporary.replace(folder / PROGRESS)


def _read(path: Path) -> Features | None:
  if not path.is_file():
    return None
  try:
    return Features(**json.loads(path.read_text("utf-8")))
  except (ValueError, TypeError) as e:
    raise errors.UserError(f"{str(path)!r} is not readable: {e}") from e


def _shards(folder: Path, length: int) -> list[Path]:
  count = -(-length // SHARD_EXAMPLES)
  return [
    folder / f"codes-{i:05d}-of-{count:05d}.array_record" for i in range(count)
  ]
