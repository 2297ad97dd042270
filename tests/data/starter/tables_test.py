import hashlib
import zipfile

import pytest

from mmjax.core import errors
from mmjax.data import starter

COUNTS = {
  ("emoji", "train"): 3474,
  ("emoji", "unseen_artist"): 1686,
  ("emoji", "unseen_concept"): 166,
  ("emoji", "unseen_concept_train_artists"): 338,
  ("clips", "train"): 432,
  ("clips", "test"): 45,
  ("speech", "train"): 480,
  ("speech", "test"): 55,
}


@pytest.mark.parametrize("table, split", COUNTS)
def test_splits_have_the_published_sizes(table, split):
  assert len(starter.items(table, split)) == COUNTS[table, split]


@pytest.mark.parametrize("table", starter.TABLES)
def test_splits_cover_the_archive_exactly_once(table):
  listed = [
    item.file
    for split in starter.SPLITS[table]
    for item in starter.items(table, split)
  ]
  with zipfile.ZipFile(starter.archive(table)) as files:
    assert sorted(listed) == sorted(files.namelist())


def test_a_held_out_concept_is_in_no_training_picture():
  trained = {i.fields["concept"] for i in starter.items("emoji", "train")}
  for split in ("unseen_concept", "unseen_concept_train_artists"):
    held_out = {i.fields["concept"] for i in starter.items("emoji", split)}
    assert not held_out & trained
  for concept in sorted(trained)[:50]:
    digest = hashlib.sha256(concept.encode()).digest()
    assert int.from_bytes(digest, "big") % 10 != 0


def test_training_artists_are_not_the_test_artist():
  def artists(split):
    return {i.fields["artist"] for i in starter.items("emoji", split)}

  assert artists("train") == {"noto", "twemoji"}
  assert artists("unseen_artist") == {"fluent3d"}
  assert artists("unseen_concept") == {"fluent3d"}


def test_class_names_are_sorted_and_complete():
  groups = starter.class_names("group")
  assert len(groups) == 9
  assert list(groups) == sorted(groups)
  assert len(starter.class_names("subgroup")) == 98
  assert starter.class_names("artist") == ("fluent3d", "noto", "twemoji")


def test_tokenizer_texts_hold_nothing_of_held_out_items():
  texts = set(starter.texts())
  assert "grinning face" in texts
  trained = {
    i.fields["label_en"]
    for table in ("emoji", "clips")
    for i in starter.items(table, "train")
  }
  tags = {
    tag
    for table in ("emoji", "clips")
    for i in starter.items(table, "train")
    for tag in i.fields["tags_en"].split("|")
  }
  for item in starter.items("emoji", "unseen_concept"):
    label = item.fields["label_en"]
    assert label not in texts or label in trained | tags


def test_unknown_names_are_told_with_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean 'emoji'"):
    starter.rows("emojis")
  with pytest.raises(errors.UserError, match="Did you mean 'unseen_artist'"):
    starter.items("emoji", "unseen_artists")
  with pytest.raises(errors.UserError, match="Did you mean 'subgroup'"):
    starter.class_names("subgroups")
