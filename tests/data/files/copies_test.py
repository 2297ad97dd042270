"""Prepared data behind a URL; `memory://` is in this process."""

import fsspec
import pytest

from mmjax.core import errors
from mmjax.data import open_source, prepare, prepare_example
from mmjax.data.files import copies

URL = "memory://data/texts"
EXAMPLES = {
  "train": [{"key": f"{i}", "text": f"text {i}", "n": i} for i in range(6)],
  "test": [{"key": f"{i}", "text": f"other {i}", "n": i} for i in range(3)],
}


@pytest.fixture
def store(tmp_path, monkeypatch):
  """Has two splits, as `mmjax data prepare` writes them."""
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
  for split, examples in EXAMPLES.items():
    prepare.prepare(
      examples,
      tmp_path / "made",
      name="mine",
      split=split,
      options=prepare_example.PrepareOptions(),
    )
  system = fsspec.filesystem("memory")
  system.store.clear()
  for path in (tmp_path / "made").rglob("*"):
    if path.is_file():
      name = path.relative_to(tmp_path / "made").as_posix()
      system.pipe_file(f"/data/texts/{name}", path.read_bytes())
  yield system
  system.store.clear()


def _read(url, split):
  return [dict(e) for e in open_source("files", split=split, path=url)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_examples_are_those_that_were_prepared(store, split):
  assert _read(URL, split) == EXAMPLES[split]
  assert _read(f"{URL}/{split}", split) == EXAMPLES[split]


def test_only_the_split_is_copied_and_only_once(store):
  _read(URL, "train")
  folder = copies.folder_of(URL)
  shards = {p: p.stat().st_mtime_ns for p in folder.rglob("*.array_record")}
  assert {p.parent.name for p in shards} == {"train"}

  _read(URL, "train")

  assert {p: p.stat().st_mtime_ns for p in shards} == shards


def test_what_was_cut_short_is_copied_again(store):
  _read(URL, "test")
  (shard,) = copies.folder_of(URL).rglob("*.array_record")
  shard.write_bytes(b"half")

  assert _read(URL, "test") == EXAMPLES["test"]


def test_a_split_that_is_not_there_is_refused(store):
  with pytest.raises(errors.UserError, match="tset.*Did you mean 'test'"):
    _read(URL, "tset")


def test_a_disk_that_is_too_small_is_refused(store, monkeypatch):
  full = copies.shutil.disk_usage("/")._replace(free=10)
  monkeypatch.setattr(copies.shutil, "disk_usage", lambda path: full)

  with pytest.raises(errors.UserError, match="GiB free. Set XDG_CACHE_HOME"):
    _read(URL, "test")
  assert not list(copies.folder_of(URL).rglob("*.array_record"))
