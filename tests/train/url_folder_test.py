import concurrent.futures
import logging
import re
import threading
import time
import types
from pathlib import Path

import fsspec
import pytest

from mmjax.core import errors
from mmjax.train import leftovers, manifest, mirror, url_folder
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


def test_what_a_killed_run_left_is_cleared_by_the_next(store):
  with leftovers.owned(URL) as left:
    pass  # As if it had been killed: nobody removes it.

  with url_folder.opened(URL) as folder:
    assert folder.is_dir() and not left.exists()


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


class Peers:
  """Threads in place of processes."""

  def __init__(self, count):
    self._barrier = threading.Barrier(count, timeout=60)
    self._texts = [""] * count

  def run(self, work):
    """`work(peer)` in a thread for each; returns what they raised, or None."""

    def guarded(index):
      try:
        work(types.SimpleNamespace(index=index, gather=self._gather(index)))
      except errors.UserError as e:
        return e

    with concurrent.futures.ThreadPoolExecutor(len(self._texts)) as pool:
      return list(pool.map(guarded, range(len(self._texts))))

  def _gather(self, index):
    def gather(text):
      self._texts[index] = text
      self._barrier.wait()
      texts = list(self._texts)
      self._barrier.wait()
      return texts

    return gather


def _save_part(folder, index, step=3):
  path = folder / "checkpoints" / str(step) / "state" / "bias" / str(index)
  path.parent.mkdir(parents=True)
  path.write_text(f"{index}")
  manifest.write(path.parents[2])


def test_parts_of_several_processes_are_whole_when_all_end(store, tmp_path):
  def work(peer):
    with url_folder.opened(URL, peers=peer) as folder:
      _save_part(folder, peer.index)

  assert Peers(3).run(work) == [None] * 3

  folder = url_folder.fetched(URL) / "checkpoints" / "3"
  assert not manifest.verify(folder)
  assert {p.name for p in (folder / "state" / "bias").iterdir()} == set("012")
  assert not store.exists(f"/box/runs/a/{mirror.PROBE}")


def test_all_end_with_the_error_if_the_last_upload_of_one_fails(
  store, monkeypatch
):
  push = Mirror.push

  def lose(self):
    if self._part.index == 1:
      raise ConnectionError("lost")
    push(self)

  def work(peer):
    with url_folder.opened(URL, peers=peer) as folder:
      _save_part(folder, peer.index)

  monkeypatch.setattr(Mirror, "push", lose)
  found = Peers(2).run(work)

  said = r"Process 1: .*ConnectionError: lost\)\. /\S+ has process "
  for index, error in enumerate(found):
    assert re.search(rf"{said}{index}'s part of", str(error))
  assert not store.glob(f"/box/runs/a/checkpoints/*/{manifest.FILE}")


def test_a_part_that_never_came_is_an_error(store):
  def work(peer):
    with url_folder.opened(URL, peers=peer) as folder:
      if peer.index == 0:
        _save_part(folder, peer.index)

  found = Peers(2).run(work)

  assert all("steps 3 are missing" in str(e) for e in found)


def test_the_others_need_no_older_step(store):
  def save(peer):
    with url_folder.opened(URL, peers=peer) as folder:
      for step in (3, 6):
        _save_part(folder, peer.index, step)

  found = {}

  def look(peer):
    with url_folder.opened(URL, peers=peer) as folder:
      names = [p.name for p in (folder / "checkpoints").iterdir()]
      found[peer.index] = sorted(names)

  assert Peers(2).run(save) == [None] * 2
  assert Peers(2).run(look) == [None] * 2
  assert found == {0: ["3", "6"], 1: ["6"]}
