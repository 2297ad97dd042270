"""Mirrors of several processes, each with a folder of its own."""

import json

import pytest

from mmjax.core import errors
from mmjax.train import manifest
from mmjax.train.mirror import Mirror, Part
from tests.train.mirror_test import URL, _at_url, _files, _lost, store

__all__ = ["store"]  # A fixture.

COMMON = ("meta/metadata", "state/_METADATA")  # In the folder of each process.


class Process:
  """A process of a job: its folder and its mirror."""

  def __init__(self, tmp_path, index, job="job"):
    self.folder = tmp_path / f"{job}-{index}"
    self.folder.mkdir()
    self.index = index
    self.mirror = Mirror(URL, self.folder, Part(index=index, count=2, job=job))

  def step(self, step):
    return self.folder / "checkpoints" / str(step)

  def save(self, step, text="numbers"):
    """Writes this process's part of a step."""
    for name in (*COMMON, f"state/bias/{self.index}"):
      path = self.step(step) / name
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(f"{name} of {step} by {self.index}: {text}")
    manifest.write(self.step(step))

  def delete(self, step, name="deleted"):
    self.step(step).rename(self.step(f"{name}-{step}"))


@pytest.fixture
def start(tmp_path):
  """`start(job)`: the two processes of a job, which have read what is there."""

  def make(job="job"):
    both = Process(tmp_path, 0, job), Process(tmp_path, 1, job)
    both[0].mirror.pull()
    both[1].mirror.pull("latest")
    return both

  return make


@pytest.fixture
def pulled(tmp_path):
  """`pulled()`: what a process alone finds, by step."""

  def pull():
    folder = tmp_path / f"reader-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    Mirror(URL, folder).pull()
    return {
      int(p.name): {**_files(p), "damage": manifest.verify(p)}
      for p in (folder / "checkpoints").glob("*")
    }

  return pull


def test_the_parts_of_all_are_one_step(start, pulled, store):
  first, second = start()
  first.save(3)
  second.save(3)

  first.mirror.push()
  second.mirror.push()
  assert first.mirror.waiting == ["3"] and not pulled()
  first.mirror.push()

  step = pulled()[3]
  assert not step.pop("damage")
  assert set(step) == {
    *COMMON, "state/bias/0", "state/bias/1", manifest.FILE
  }  # fmt: skip
  assert step["state/bias/1"].endswith("by 1: numbers")
  assert step["meta/metadata"].endswith("by 0: numbers")
  assert not first.mirror.waiting and not second.mirror.waiting
  assert not [n for n in _at_url(store) if "parts" in n]


def test_a_part_that_breaks_off_leaves_no_step(
  start, pulled, store, monkeypatch
):
  first, second = start()
  first.save(3)
  second.save(3)
  with monkeypatch.context() as patch:
    patch.setattr(type(store), "put_file", _lost)
    with pytest.raises(ConnectionError):
      second.mirror.push()

  first.mirror.push()
  first.mirror.push()
  assert not pulled()
  second.mirror.push()  # The next try.
  first.mirror.push()
  assert not pulled()[3]["damage"]


def test_what_a_job_before_left_is_not_taken_for_a_part(start, pulled):
  _, dead = start("dead")
  dead.save(3, "of another run")
  dead.mirror.push()

  first, second = start("next")
  first.save(3)
  first.mirror.push()
  assert not pulled()
  second.save(3)
  second.mirror.push()
  first.mirror.push()

  step = pulled()[3]
  assert not step["damage"]
  assert step["state/bias/1"].endswith("numbers")


def test_a_step_stays_there_until_a_newer_one_is_whole(start, pulled):
  first, second = start()
  for step in (3, 6):
    for process in (first, second):
      process.save(step)
      if step == 6:
        process.delete(3)
    first.mirror.push()
    if step == 3:
      second.mirror.push()
      first.mirror.push()
  assert set(pulled()) == {3}

  second.mirror.push()
  first.mirror.push()

  assert set(pulled()) == {6}


def test_only_the_first_deletes_and_writes_other_files(start, pulled, store):
  first, second = start()
  for process in (first, second):
    process.save(3)
    process.mirror.push()
  first.mirror.push()
  second.save(6)
  second.delete(3)
  (second.folder / "config.json").write_text("{}")

  second.mirror.push()

  assert set(pulled()) == {3} and "config.json" not in _at_url(store)


def test_a_damaged_step_is_removed_before_others_write_its_parts(
  start, pulled, store
):
  for process in (both := start("before")):
    process.save(3)
    process.mirror.push()
  both[0].mirror.push()
  store.pipe_file("/bucket/run/checkpoints/3/state/bias/0", b"damaged")

  first, second = start("after")
  for process in (first, second):
    process.delete(3, "damaged")
    process.save(3, "made again")
  second.mirror.push()  # Waits.
  assert b"numbers" in store.cat_file("/bucket/run/checkpoints/3/state/bias/1")
  for process in (first, second, first):
    process.mirror.push()

  step = pulled()[3]
  assert not step["damage"]
  assert step["state/bias/1"].endswith("made again")
  old = store.cat_file("/bucket/run/checkpoints/damaged-3/state/bias/0")
  assert old == b"damaged"


def test_what_a_killed_job_left_is_removed_once_it_was_passed(
  start, pulled, store
):
  store.pipe_file("/bucket/run/checkpoints/5/state/b", b"half")
  store.pipe_file("/bucket/run/checkpoints/9/state/b", b"half")
  first, second = start()
  for process in (first, second):
    process.save(6)
  for process in (first, second):
    process.mirror.push()
  assert _at_url(store, "checkpoints/5")

  first.mirror.push()

  # Another process may be writing its part of a later one.
  assert not _at_url(store, "checkpoints/5")
  assert _at_url(store, "checkpoints/9") and set(pulled()) == {6}


def test_another_place_is_refused(start, store):
  first, second = start()
  with pytest.raises(errors.UserError, match="another place for process 1"):
    second.mirror.check_probe()
  first.mirror.write_probe()

  second.mirror.check_probe()
  first.mirror.remove_probe()

  assert not store.find("/bucket")


def test_a_process_that_may_only_read_is_refused(start, store, monkeypatch):
  first, second = start()
  first.mirror.write_probe()
  monkeypatch.setattr(type(store), "pipe_file", _lost)

  with pytest.raises(errors.UserError, match="cannot be written to"):
    second.mirror.check_probe()


def test_the_manifest_is_sorted_and_of_all_files(start, store):
  first, second = start()
  for process in (first, second):
    process.save(3)
    process.mirror.push()
  first.mirror.push()

  text = store.cat_file(f"/bucket/run/checkpoints/3/{manifest.FILE}")

  files = json.loads(text)["files"]
  assert list(files) == sorted(files) and len(files) == 4
  for name, entry in files.items():
    assert store.size(f"/bucket/run/checkpoints/3/{name}") == entry["size"]
