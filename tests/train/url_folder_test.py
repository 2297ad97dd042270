import logging
import re
import time
from pathlib import Path

import fsspec
import pytest

from mmjax.core import errors
from mmjax.train import url_folder
from mmjax.train.mirror import Mirror

URL = "memory://box/runs/a"


@pytest.fixture
def store(tmp_path, monkeypatch):
  """The files behind `memory://`; copies of them go below `tmp_path`."""
  system = fsspec.filesystem("memory")
  system.store.clear()
  system.pseudo_dirs[:] = [""]
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  url_folder.fetched.cache_clear()
  yield system
  url_folder.fetched.cache_clear()
  system.store.clear()
  system.pseudo_dirs[:] = [""]


def test_a_path_is_worked_on_as_it_is(tmp_path):
  with url_folder.opened(str(tmp_path / "run")) as folder:
    assert folder == tmp_path / "run" and not folder.exists()
  with url_folder.opened(f"file://{tmp_path}/run") as folder:
    assert folder == tmp_path / "run"
  assert url_folder.fetched("~/run") == Path("~/run").expanduser()


def test_what_is_written_is_at_the_url_when_it_ends(store, tmp_path):
  with url_folder.opened(URL) as folder:
    assert folder.parts[-3:] == ("box", "runs", "a")
    (folder / "config.json").write_text("{}")

  assert store.cat_file("/box/runs/a/config.json") == b"{}"
  assert not list(tmp_path.iterdir())


def test_what_is_written_goes_up_meanwhile(store, monkeypatch):
  monkeypatch.setattr(url_folder, "EVERY_SECS", 0.01)

  with url_folder.opened(URL) as folder:
    (folder / "metrics.jsonl").write_text("1\n")
    deadline = time.monotonic() + 60
    while not store.exists("/box/runs/a/metrics.jsonl"):
      assert time.monotonic() < deadline
      time.sleep(0.01)


def test_a_lost_connection_meanwhile_is_tried_again(store, monkeypatch, caplog):
  monkeypatch.setattr(url_folder, "EVERY_SECS", 0.01)
  push, calls = Mirror.push, []

  def lose(self):
    calls.append(1)
    if len(calls) == 1:
      raise ConnectionError("lost")
    push(self)

  monkeypatch.setattr(Mirror, "push", lose)
  with url_folder.opened(URL) as folder:
    (folder / "metrics.jsonl").write_text("1\n")
    deadline = time.monotonic() + 60
    while len(calls) < 2:
      assert time.monotonic() < deadline
      time.sleep(0.01)

  assert "ConnectionError: lost" in caplog.text
  assert store.exists("/box/runs/a/metrics.jsonl")


def test_an_error_names_the_url_and_what_was_written_is_kept(store, tmp_path):
  with (
    pytest.raises(errors.UserError, match=f"^no run in {URL}/x$"),
    url_folder.opened(URL) as folder,
  ):
    (folder / "metrics.jsonl").write_text("1\n")
    raise errors.UserError(f"no run in {folder}/x")

  assert store.exists("/box/runs/a/metrics.jsonl")
  assert not list(tmp_path.iterdir())


def test_if_the_last_upload_fails_the_copy_stays(store, monkeypatch):
  monkeypatch.setattr(Mirror, "push", _lost)

  with (
    pytest.raises(errors.UserError, match="ConnectionError: lost") as caught,
    url_folder.opened(URL) as folder,
  ):
    (folder / "config.json").write_text("{}")

  where = Path(re.search(r"(/\S+) has what was made", str(caught.value))[1])
  assert (where / "config.json").read_text() == "{}"


def test_an_error_counts_more_than_a_lost_upload(store, monkeypatch, caplog):
  monkeypatch.setattr(Mirror, "push", _lost)

  with (
    caplog.at_level(logging.ERROR),
    pytest.raises(errors.UserError, match="^bad config$"),
    url_folder.opened(URL),
  ):
    raise errors.UserError("bad config")

  assert re.search("ConnectionError: lost.*has what was made", caplog.text)


def _lost(*args, **kwargs):
  raise ConnectionError("lost")


def test_a_place_that_cannot_be_written_is_found_before_the_work(store):
  with (
    pytest.raises(errors.UserError, match="cannot be written"),
    url_folder.opened("data://box/run"),
  ):
    pytest.fail("began to work")


def test_a_folder_is_fetched_once_in_a_process(store):
  store.pipe_file("/box/runs/a/config.json", b"{}")

  first = url_folder.fetched(URL)
  store.pipe_file("/box/runs/a/config.json", b"[]")

  assert url_folder.fetched(URL) == first
  assert (first / "config.json").read_text() == "{}"
