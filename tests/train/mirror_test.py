"""Against `memory://`, which `fsspec` keeps in this process."""

import json

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem

from mmjax.core import errors
from mmjax.train import manifest
from mmjax.train import mirror as mirror_lib
from mmjax.train.mirror import Mirror

URL = "memory://bucket/run"


@pytest.fixture
def store():
  """The files behind all `memory://` URLs: name -> what is in it."""
  system = fsspec.filesystem("memory")
  system.store.clear()
  system.pseudo_dirs[:] = [""]
  yield system
  system.store.clear()
  system.pseudo_dirs[:] = [""]


@pytest.fixture
def pulled(tmp_path):
  """`pulled(step)`: the folder of a new host, read from the URL."""

  def pull(step="all", name="other"):
    folder = tmp_path / name
    folder.mkdir()
    Mirror(URL, folder).pull(step)
    return folder

  return pull


@pytest.fixture
def here(tmp_path):
  folder = tmp_path / "here"
  folder.mkdir()
  return folder


def _step(folder, step, text="numbers", listed=True):
  made = folder / "checkpoints" / str(step)
  (made / "state" / "d").mkdir(parents=True)
  for name in ("state/d/a", "state/b", "meta"):
    (made / name).write_text(f"{name} of {step}: {text}")
  if listed:
    manifest.write(made)


def _files(folder):
  """Name -> text of the files in a folder."""
  return {
    path.relative_to(folder).as_posix(): path.read_text()
    for path in folder.rglob("*")
    if path.is_file()
  }


def _at_url(store, below=""):
  names = store.find(f"/bucket/run/{below}")
  return sorted(name.removeprefix("/bucket/run/") for name in names)


def test_what_is_pushed_is_pulled_elsewhere(here, store, pulled):
  (here / "metrics.jsonl").write_text("{}\n")
  (here / "evaluations" / "3").mkdir(parents=True)
  (here / "evaluations" / "3" / "metrics.json").write_text("{}")
  _step(here, 3)

  Mirror(URL, here).push()

  assert _files(pulled()) == _files(here)


def test_a_push_uploads_only_what_changed_since(here, store):
  (here / "config.json").write_text("{}")
  (here / "metrics.jsonl").write_text("1\n")
  _step(here, 3)
  mirror = Mirror(URL, here)
  mirror.push()
  for name in store.find("/bucket/run"):
    store.pipe_file(name, b"as it was")

  with (here / "metrics.jsonl").open("a") as f:
    f.write("2\n")
  mirror.push()

  assert store.cat_file("/bucket/run/metrics.jsonl") == b"1\n2\n"
  others = [n for n in _at_url(store) if n != "metrics.jsonl"]
  assert len(others) == 5
  for name in others:
    assert store.cat_file(f"/bucket/run/{name}") == b"as it was"


def test_what_was_pulled_is_not_uploaded_again(here, store, pulled):
  _step(here, 3)
  (here / "config.json").write_text("{}")
  Mirror(URL, here).push()
  folder = here.parent / "second"
  folder.mkdir()
  second = Mirror(URL, folder)
  second.pull()
  for name in store.find("/bucket/run"):
    store.pipe_file(name, b"as it was")

  second.push()

  for name in store.find("/bucket/run"):
    assert store.cat_file(name) == b"as it was"


def test_half_written_files_and_steps_stay_here(here, store):
  (here / "config.tmp").write_text("{")
  _step(here, 3, listed=False)
  _step(here, "4.orbax-checkpoint-tmp")
  _step(here, "deleted-2")

  Mirror(URL, here).push()

  assert not _at_url(store)


def test_an_upload_that_breaks_off_leaves_no_step(
  here, store, pulled, monkeypatch
):
  _step(here, 3)
  mirror = Mirror(URL, here)
  mirror.push()
  _step(here, 6)
  put_file = type(store).put_file

  def break_off(self, source, target, **kwargs):
    if target.endswith("6/state/b"):
      raise ConnectionError("lost")
    put_file(self, source, target, **kwargs)

  monkeypatch.setattr(type(store), "put_file", break_off)
  with pytest.raises(ConnectionError):
    mirror.push()

  assert _at_url(store, "checkpoints/6")
  assert set(_files(pulled())) == {n for n in _files(here) if "/3/" in n}
  monkeypatch.undo()
  mirror.push()  # The next try.
  assert _files(pulled(name="third")) == _files(here)


def test_a_manifest_goes_up_after_all_other_files(here, store, monkeypatch):
  _step(here, 3)
  found = []
  pipe_file = type(store).pipe_file

  def look(self, path, value, **kwargs):
    if path.endswith(manifest.FILE):
      found.extend(_at_url(store))
    pipe_file(self, path, value, **kwargs)

  monkeypatch.setattr(type(store), "pipe_file", look)
  Mirror(URL, here).push()

  names = set(_files(here)) - {f"checkpoints/3/{manifest.FILE}"}
  assert set(found) == names and len(names) == 3


def test_the_log_that_goes_up_is_no_older_than_the_step(
  here, store, monkeypatch
):
  stamp = mirror_lib._stamp

  def log_then_step(path):  # As if both had been written just now.
    if path.name == manifest.FILE:
      (here / "metrics.jsonl").write_text("1\n2\n3\n")
    return stamp(path)

  monkeypatch.setattr(mirror_lib, "_stamp", log_then_step)
  _step(here, 3)
  Mirror(URL, here).push()

  assert store.cat_file("/bucket/run/metrics.jsonl") == b"1\n2\n3\n"


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints/3/manifest"])
def test_a_write_that_ends_halfway_leaves_what_was_there(
  here, tmp_path, monkeypatch, name
):
  there = tmp_path / "there"
  (here / "metrics.jsonl").write_text("1\n")
  system = LocalFileSystem(auto_mkdir=True)
  monkeypatch.setattr(mirror_lib.folders, "remote", lambda url: (system, url))
  mirror = Mirror(str(there), here)
  mirror.push()
  before = _files(there)
  _step(here, 3)
  (here / "metrics.jsonl").write_text("1\n2\n")
  pipe_file = LocalFileSystem.pipe_file

  def half(self, path, value, **kwargs):
    if name in path:
      pipe_file(self, path, value[:1], **kwargs)
      raise KeyboardInterrupt  # The process is killed here.
    pipe_file(self, path, value, **kwargs)

  monkeypatch.setattr(LocalFileSystem, "pipe_file", half)
  with pytest.raises(KeyboardInterrupt):
    mirror.push()

  other = tmp_path / "other"
  other.mkdir()
  Mirror(str(there), other).pull()
  assert before == {"metrics.jsonl": "1\n"}
  logged = "1\n" if name == "metrics.jsonl" else "1\n2\n"
  assert _files(other) == {"metrics.jsonl": logged}


def test_a_step_that_is_gone_here_goes_there_manifest_first(
  here, store, pulled, monkeypatch
):
  for step in (3, 6):
    _step(here, step)
  mirror = Mirror(URL, here)
  mirror.push()
  (here / "checkpoints" / "3").rename(here / "checkpoints" / "deleted-3")

  with monkeypatch.context() as patch:
    patch.setattr(type(store), "rm", _lost)
    with pytest.raises(ConnectionError):
      mirror.push()
  assert _at_url(store, "checkpoints/3")
  assert not (pulled() / "checkpoints" / "3").exists()

  mirror.push()
  assert not _at_url(store, "checkpoints/3")
  assert len(_at_url(store, "checkpoints/6")) == 4


def _lost(*args, **kwargs):
  raise ConnectionError("lost")


def test_what_a_killed_run_left_is_removed_by_the_next_step(here, store):
  store.pipe_file("/bucket/run/checkpoints/5/state/b", b"half")
  mirror = Mirror(URL, here)
  mirror.pull()
  (here / "metrics.jsonl").write_text("{}\n")
  mirror.push()
  assert _at_url(store, "checkpoints/5")  # A look changes nothing.

  _step(here, 6)
  mirror.push()

  assert not _at_url(store, "checkpoints/5")
  assert len(_at_url(store, "checkpoints/6")) == 4


@pytest.mark.parametrize(
  "step, expected",
  [
    ("all", ["1", "10", "9"]),
    ("best", ["1", "10", "9"]),
    ("latest", ["10"]),
    ("9", ["9"]),
    (1, ["1"]),
    ("none", []),
  ],
)
def test_only_the_steps_that_are_asked_for_are_pulled(
  here, store, pulled, step, expected
):
  (here / "config.json").write_text("{}")
  for number in (1, 9, 10):
    _step(here, number)
  Mirror(URL, here).push()

  folder = pulled(step)

  found = sorted(p.name for p in (folder / "checkpoints").glob("*"))
  assert found == expected
  assert (folder / "config.json").read_text() == "{}"


def test_steps_that_were_not_pulled_stay_at_the_url(here, store, tmp_path):
  for number in (1, 9):
    _step(here, number)
  Mirror(URL, here).push()
  folder = tmp_path / "reader"
  folder.mkdir()
  reader = Mirror(URL, folder)
  reader.pull("latest")
  (folder / "report.html").write_text("<html>")

  reader.push()

  assert len(_at_url(store, "checkpoints")) == 8
  assert "report.html" in _at_url(store)


@pytest.mark.parametrize("damage", ["content", "missing", "manifest"])
def test_latest_has_the_step_before_too_if_it_is_damaged(
  here, store, pulled, damage
):
  for number in (3, 6, 9):
    _step(here, number)
  Mirror(URL, here).push()
  if damage == "missing":
    store.rm_file("/bucket/run/checkpoints/9/state/b")
  else:
    name = "state/b" if damage == "content" else manifest.FILE
    store.pipe_file(f"/bucket/run/checkpoints/9/{name}", b"other")

  folder = pulled("latest") / "checkpoints"

  assert sorted(p.name for p in folder.iterdir()) == ["6", "9"]
  assert manifest.verify(folder / "9") and not manifest.verify(folder / "6")


def test_a_damaged_step_is_set_aside_there_too(here, store, pulled):
  for number in (3, 6):
    _step(here, number)
  mirror = Mirror(URL, here)
  mirror.push()
  (here / "checkpoints" / "6").rename(here / "checkpoints" / "damaged-6")
  _step(here, 6, "made again")

  mirror.push()

  folder = pulled() / "checkpoints"
  assert sorted(p.name for p in folder.iterdir()) == ["3", "6"]
  assert "made again" in (folder / "6" / "meta").read_text()
  old = store.cat_file("/bucket/run/checkpoints/damaged-6/meta")
  assert old == b"meta of 6: numbers"


def test_a_step_that_is_deleted_while_it_is_uploaded_is_left_out(
  here, store, pulled, monkeypatch, caplog
):
  _step(here, 3)
  _step(here, 6)
  put_file = type(store).put_file

  def delete(self, source, target, **kwargs):
    if target.endswith("3/state/b"):
      (here / "checkpoints" / "3").rename(here / "checkpoints" / "deleted-3")
    put_file(self, source, target, **kwargs)

  monkeypatch.setattr(type(store), "put_file", delete)
  Mirror(URL, here).push()

  assert [p.name for p in (pulled() / "checkpoints").iterdir()] == ["6"]
  assert "Checkpoint 3 was deleted here before all of it was up" in caplog.text


def test_a_step_that_is_not_there_is_refused(here, store, pulled):
  for number in (3, 12):
    _step(here, number)
  Mirror(URL, here).push()

  with pytest.raises(errors.UserError, match=r"No step '4'.*\['3', '12'\]"):
    pulled("4")


def test_nothing_at_the_url_is_an_empty_folder(store, pulled):
  assert not _files(pulled())


def test_a_place_that_cannot_be_written_is_refused(here, store, monkeypatch):
  mirror = Mirror(URL, here)
  mirror.check_writable()
  assert not store.find("/bucket")

  monkeypatch.setattr(type(store), "pipe_file", _lost)
  with pytest.raises(errors.UserError, match="bucket/run.*ConnectionError"):
    mirror.check_writable()


def test_a_place_that_cannot_be_read_is_refused(here, store, monkeypatch):
  monkeypatch.setattr(type(store), "find", _lost)

  with pytest.raises(errors.UserError, match="cannot be read.*lost"):
    Mirror(URL, here).pull()


def test_manifest_lists_what_the_url_has(here, store):
  _step(here, 3)
  Mirror(URL, here).push()

  text = store.cat_file(f"/bucket/run/checkpoints/3/{manifest.FILE}")

  for name, entry in json.loads(text)["files"].items():
    assert store.size(f"/bucket/run/checkpoints/3/{name}") == entry["size"]
