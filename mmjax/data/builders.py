"""TFDS builders that turn the starter tables into ArrayRecord files.

The same way as any other source: `tfds.core.GeneratorBasedBuilder`, without
TensorFlow. Pictures are written as encoded bytes (TFDS encodes arrays with
TensorFlow), and so are clips and recordings (its `Video` and `Audio` features
cannot even be constructed without it). Importing this module imports TFDS:
`mmjax.data.sources` does so only when such a source is opened.
"""

import contextlib
import fcntl
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from mmjax.core import errors
from mmjax.data import starter

FORMAT = "array_record"


class _StarterBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Writes one table; subclasses say which and what its records hold."""

  VERSION = tfds.core.Version("1.0.0")
  RELEASE_NOTES = {"1.0.0": "The starter set of mmjax."}
  TABLE = ""
  MEDIUM = ""  # Field with the encoded bytes of the item.

  def _features(self) -> dict[str, Any]:
    raise NotImplementedError

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f"The {self.TABLE} of mmjax's starter set.",
      features=tfds.features.FeaturesDict(self._features()),
      # Keeps the order of the table, so that listings can be compared.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Everything ships inside the package.
    return {
      split: self._generate_examples(split)
      for split in starter.SPLITS[self.TABLE]
    }

  def _generate_examples(self, split) -> Iterator[tuple[int, dict[str, Any]]]:
    with zipfile.ZipFile(starter.archive(self.TABLE)) as files:
      for i, item in enumerate(starter.items(self.TABLE, split)):
        yield i, {**item.fields, self.MEDIUM: files.read(item.file)}


class StarterEmoji(_StarterBuilder):
  """Pictures of 1,906 concepts by three artists, with labels and tags."""

  TABLE = "emoji"
  MEDIUM = "image"

  def _features(self):
    image = tfds.features.Image(shape=(64, 64, 3))
    return {"image": image, **_texts("artist", *_columns("emoji", "artists"))}

  def _generate_examples(self, split):
    for i, fields in super()._generate_examples(split):
      yield i, {**fields, "image": io.BytesIO(fields["image"])}


class StarterClips(_StarterBuilder):
  """Animated WebP, 16 frames of 64x64 at 8 frames/s, with labels."""

  TABLE = "clips"
  MEDIUM = "clip"

  def _features(self):
    return {"clip": _encoded(), **_texts(*_columns("clips"))}


class StarterSpeech(_StarterBuilder):
  """OGG/Opus, mono, 8 kHz, one speaker, with English transcripts."""

  TABLE = "speech"
  MEDIUM = "audio"

  def _features(self):
    return {
      "audio": _encoded(),
      "seconds": tfds.features.Scalar(np.float32),
      **_texts(*_columns("speech", "seconds")),
    }

  def _generate_examples(self, split):
    for i, fields in super()._generate_examples(split):
      yield i, {**fields, "seconds": float(fields["seconds"])}


def _columns(table: str, *without: str) -> list[str]:
  return [name for name in starter.rows(table)[0] if name not in without]


def _texts(*names: str) -> dict[str, Any]:
  return {name: tfds.features.Text() for name in names}


def _encoded() -> Any:
  return tfds.features.Scalar(np.object_)


BUILDERS = {
  "starter_emoji": StarterEmoji,
  "starter_clips": StarterClips,
  "starter_speech": StarterSpeech,
}


def data_dir(path: str = "") -> Path:
  """Returns `path`, else $MMJAX_DATA_DIR, else ~/.cache/mmjax/data."""
  chosen = path or os.environ.get("MMJAX_DATA_DIR") or "~/.cache/mmjax/data"
  return Path(chosen).expanduser()


def prepare(name: str, path: str = "") -> Any:
  """Writes a starter table as ArrayRecord, if it is not there yet.

  Safe when several processes start at once: one writes, the others wait.

  Returns:
    The TFDS builder, prepared.

  Raises:
    UserError: unknown name, or the folder cannot be written.
  """
  if name not in BUILDERS:
    raise errors.unknown("starter source", name, BUILDERS)
  folder = data_dir(path)
  builder = BUILDERS[name](data_dir=str(folder), file_format=FORMAT)
  if _is_prepared(builder):
    return builder
  try:
    with _locked(folder, name):
      # Made again: a builder looks for its files when it is constructed.
      builder = BUILDERS[name](data_dir=str(folder), file_format=FORMAT)
      if not _is_prepared(builder):
        _write(builder)
  except OSError as e:
    raise errors.UserError(
      f"Cannot write {name!r} to {str(folder)!r}: {e}. Name a writable folder "
      "with data.path or the environment variable MMJAX_DATA_DIR."
    ) from e
  return builder


def _is_prepared(builder: Any) -> bool:
  # TFDS renames the finished folder, so it is whole or absent. Its own
  # `is_prepared` warns about every folder that is not there yet.
  return (Path(builder.data_dir) / "dataset_info.json").is_file()


@contextlib.contextmanager
def _locked(folder: Path, name: str) -> Iterator[None]:
  folder.mkdir(parents=True, exist_ok=True)
  with (folder / f".{name}.lock").open("w") as lock:
    # Released by the system, also when the process is killed.
    fcntl.flock(lock, fcntl.LOCK_EX)
    yield


def _write(builder: Any) -> None:
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    builder.download_and_prepare(file_format=FORMAT)
