import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from mmjax.core import errors
from mmjax.data import SOURCES, open_source, sources


class Colors(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of a user's own, with a class label and no train split."""

  VERSION = tfds.core.Version("1.2.0")

  def _info(self):
    features = tfds.features.FeaturesDict(
      {
        "name": tfds.features.Text(),
        "kind": tfds.features.ClassLabel(names=["warm", "cold"]),
        "box": tfds.features.Tensor(shape=(2,), dtype=np.int32),
      }
    )
    return tfds.core.DatasetInfo(builder=self, features=features)

  def _split_generators(self, dl_manager):
    del dl_manager
    return {"validation": self._generate_examples()}

  def _generate_examples(self):
    for i, name in enumerate(["红", "blue"]):
      kind = ["warm", "cold"][i]
      yield i, {"name": name, "kind": kind, "box": [i, 2]}


@pytest.fixture(scope="module")
def colors(tmp_path_factory):
  path = tmp_path_factory.mktemp("tfds")
  builder = Colors(data_dir=str(path), file_format="array_record")
  builder.download_and_prepare()
  return path


def test_starter_emoji_gives_text_as_str_and_pictures_as_bytes(starter_path):
  source = open_source(
    "starter_emoji", split="unseen_artist", path=starter_path
  )
  assert len(source) == 1686
  example = source[0]
  assert set(example) == {
    "image",
    "concept",
    "artist",
    "group",
    "subgroup",
    "label_en",
    "tags_en",
    "label_zh",
    "tags_zh",
  }
  assert example["image"][:4] == b"RIFF"
  assert example["label_en"] == "grinning face"
  assert example["label_zh"] == "嘿嘿"
  assert example["artist"] == "fluent3d"


def test_starter_speech_gives_encoded_audio(starter_path):
  example = open_source("starter_speech", split="test", path=starter_path)[0]
  assert example["audio"][:4] == b"OggS"
  assert example["transcript_en"] == "Activated."
  assert example["seconds"] == pytest.approx(1.06)


def test_slices_of_tfds_work(starter_path):
  whole = open_source("starter_speech", split="train", path=starter_path)
  part = open_source("starter_speech", split="train[:25%]", path=starter_path)
  assert len(part) == len(whole) // 4
  assert part[3]["clip"] == whole[3]["clip"]


def test_tfds_reads_any_prepared_folder(colors):
  for path in (colors, colors / "colors", colors / "colors" / "1.2.0"):
    source = open_source("tfds:colors", split="validation", path=str(path))
    examples = {e["name"]: e for e in (source[0], source[1])}
    assert examples["红"]["kind"] == "warm"
    assert examples["blue"]["box"].tolist() == [1, 2]
    assert source.class_names == {"kind": ("warm", "cold")}


def test_tfds_errors_say_what_was_expected(colors, tmp_path):
  with pytest.raises(errors.UserError, match="Did you mean 'validation'"):
    open_source("tfds:colors", split="validatoin", path=str(colors))
  with pytest.raises(errors.UserError, match="Did you mean 'colors'"):
    open_source("tfds:color", split="validation", path=str(colors))
  missing = tmp_path / "nowhere"
  with pytest.raises(errors.UserError, match="dataset_info.json") as caught:
    open_source("tfds:colors", split="validation", path=str(missing))
  assert str(missing) in str(caught.value)
  with pytest.raises(errors.UserError, match="needs data.path"):
    open_source("tfds:colors", split="validation")


def test_tfds_damaged_folder_is_a_user_error(tmp_path):
  (tmp_path / "dataset_info.json").write_text("{not json")
  with pytest.raises(errors.UserError, match=str(tmp_path)):
    open_source("tfds:any", split="train", path=str(tmp_path))


def test_tfds_takes_the_newest_version(tmp_path):
  for version in ("1.2.0", "1.10.0", "1.9.9"):
    folder = tmp_path / "colors" / version
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"name": "colors"}')
  found = sources.find_builder("colors", str(tmp_path))
  assert found == tmp_path / "colors" / "1.10.0"


def test_unknown_source_and_split_are_told_with_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'starter_emoji'"):
    open_source("starter_emojis", split="train")
  with pytest.raises(errors.UserError, match="Did you mean 'unseen_concept'"):
    open_source("starter_emoji", split="unseen_concepts")
  with pytest.raises(errors.UserError, match="Did you mean 'test'"):
    open_source("synthetic", split="tests")


def test_plug_in_source_by_address(tmp_path, monkeypatch):
  (tmp_path / "my_source.py").write_text(
    "class Mine:\n"
    "  def __init__(self, *, split, path):\n"
    "    self.rows = [] if split == 'empty' else [{'words': path}]\n"
    "  def __len__(self):\n"
    "    return len(self.rows)\n"
    "  def __getitem__(self, i):\n"
    "    return self.rows[i]\n"
  )
  monkeypatch.syspath_prepend(str(tmp_path))
  try:
    source = open_source("my_source:Mine", split="a", path="here")
    assert source[0] == {"words": "here"}
    with pytest.raises(errors.UserError, match="no examples"):
      open_source("my_source:Mine", split="empty", path="")
  finally:
    sys.modules.pop("my_source", None)


def test_registry_lists_the_sources():
  assert list(SOURCES) == sorted(SOURCES)
  assert {"starter_emoji", "synthetic"} <= set(SOURCES)
