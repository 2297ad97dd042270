import threading
import zipfile
from pathlib import Path

import pytest

from mmjax.core import errors
from mmjax.data import builders, starter


def test_prepare_writes_every_record_in_the_order_of_the_table(starter_path):
  import tensorflow_datasets as tfds

  builder = builders.prepare("starter_emoji", starter_path)
  skip = {"image": tfds.decode.SkipDecoding()}
  records = builder.as_data_source("unseen_concept", decoders=skip)
  items = starter.items("emoji", "unseen_concept")
  assert len(records) == len(items) == 166
  with zipfile.ZipFile(starter.archive("emoji")) as files:
    for i in (0, 83, 165):
      record = records[i]
      assert record["image"] == files.read(items[i].file)
      assert record["concept"].decode() == items[i].fields["concept"]
      assert record["tags_zh"].decode() == items[i].fields["tags_zh"]


def test_prepare_has_all_splits(starter_path):
  splits = builders.prepare("starter_emoji", starter_path).info.splits
  counts = {name: split.num_examples for name, split in splits.items()}
  assert counts == {
    "train": 3474,
    "unseen_artist": 1686,
    "unseen_concept": 166,
    "unseen_concept_train_artists": 338,
  }


def test_prepare_a_second_time_writes_nothing(starter_path):
  builder = builders.prepare("starter_speech", starter_path)
  files = sorted(Path(builder.data_dir).iterdir())
  before = [file.stat().st_mtime_ns for file in files]
  builders.prepare("starter_speech", starter_path)
  assert sorted(Path(builder.data_dir).iterdir()) == files
  assert [file.stat().st_mtime_ns for file in files] == before


def test_prepare_is_silent_and_safe_when_started_twice(tmp_path, capfd):
  results = []

  def prepare():
    builder = builders.prepare("starter_speech", str(tmp_path))
    results.append(len(builder.as_data_source("test")))

  threads = [threading.Thread(target=prepare) for _ in range(2)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert results == [55, 55]
  folders = [p.name for p in (tmp_path / "starter_speech").iterdir()]
  assert folders == ["1.0.0"]
  out, err = capfd.readouterr()
  assert out == "" and err == ""


def test_prepare_uses_the_environment_variable(monkeypatch, starter_path):
  monkeypatch.setenv("MMJAX_DATA_DIR", starter_path)
  builder = builders.prepare("starter_speech")
  assert str(builder.data_dir).startswith(starter_path)


def test_prepare_names_a_folder_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(errors.UserError, match="MMJAX_DATA_DIR"):
    builders.prepare("starter_speech", str(tmp_path / "file"))


def test_prepare_unknown_name():
  with pytest.raises(errors.UserError, match="Did you mean 'starter_clips'"):
    builders.prepare("starter_clip")
