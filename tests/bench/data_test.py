import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmjax.bench import candidates, data, pictures, rounds, storage
from mmjax.core import errors


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  made = tmp_path_factory.mktemp("pictures")
  pictures.write(made, 6)
  return made


def test_files_are_as_large_as_photographs(folder):
  for file in (folder / "jpeg").iterdir():
    assert 50_000 < file.stat().st_size < 150_000
    with Image.open(file) as opened:
      assert opened.size == (500, 375)


def test_copies_are_at_most_1_3_times_the_size_of_training(folder):
  source = pictures.open_source(
    "prepared", split="train", path=str(folder / "copies")
  )
  sizes = {min(pictures.image.decode(e["image"]).shape[:2]) for e in source}
  assert sizes == {291} and 291 <= 1.3 * candidates.SIZE


@pytest.mark.parametrize("form", ["prepared", "copies"])
def test_ours_makes_batches_of_pixels_and_tokens(folder, form):
  (batch,) = itertools.islice(candidates._ours(folder, form=form), 1)
  assert batch["image"].shape == (64, 224, 224, 3)
  assert batch["image"].dtype == np.uint8
  assert batch["text"].shape == (64, 64)


def test_peers_make_the_same(folder):
  pixels, ids = candidates._PillowFiles(folder, floats=True)[0]
  assert pixels.shape == (3, 224, 224) and pixels.dtype == np.float32
  assert ids.shape == (64,) and ids.dtype == np.int32


def test_a_peer_that_is_not_installed_is_named(folder, monkeypatch):
  monkeypatch.setitem(candidates.PACKAGES, "no_such_peer", "no-such-peer")
  with pytest.raises(candidates.NotInstalled, match="pip install no-such-peer"):
    candidates._library("no_such_peer")
  missing = rounds.Result("tf.data", (), "not installed: pip install x")
  ours = rounds.Result("mmjax", (100.0, 300.0, 200.0))
  base = rounds.Result(candidates.BASELINE, (50.0, 50.0, 60.0))
  results = [ours, base, missing]
  text = "\n".join(data._table([data._row(r, results) for r in results]))
  assert "200   100-300      4.00x" in text
  assert "tf.data" in text and "not installed: pip install x" in text


def test_speed_of_shards_is_that_of_all_their_bytes(folder):
  found = storage.read_speed(folder, 1)
  assert found["files"] > 0
  assert found["share"] == found["records"] / found["files"]


def test_the_order_of_ten_million_records_takes_no_memory():
  found = storage._start_up()
  assert found["secs"] > 0 and found["mib"] < 500


def test_five_tasks_are_drawn_as_often_as_asked():
  assert storage.draws()["largest_error"] < 0.001


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(parts=["picture"]), "Did you mean 'pictures'"),
    (dict(num_rounds=0), "rounds=0, expected at least 1"),
  ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
  options = dict(
    parts=["mixture"], num_pictures=1, num_rounds=1, secs=1.0, examples=1
  )
  with pytest.raises(errors.UserError, match=message):
    data.run(**(options | changes))


class Clock:
  """Stands for `time`; what is measured moves it."""

  def __init__(self):
    self.now = 0.0

  def perf_counter(self):
    return self.now

  def spend(self, secs):
    self.now += secs


def test_examples_a_second_are_those_after_what_was_made_before(monkeypatch):
  clock, drawn = Clock(), []

  def batches(folder):
    for i in itertools.count():
      # Those that lie ready take no time, the first ones very much.
      clock.spend(100.0 if i < 2 * candidates.DISCARDED else 0.25)
      drawn.append(i)
      yield i

  monkeypatch.setattr(candidates, "time", clock)
  monkeypatch.setitem(candidates.CANDIDATES, "fake", batches)
  made = candidates.Batches("fake", Path())
  assert len(drawn) == candidates.DISCARDED
  # The last one ends later than asked for: after 1 s.
  assert made.sample(0.9) == candidates.BATCH / 0.25
  assert len(drawn) == 2 * candidates.DISCARDED + 4


def test_shards_are_read_cold_and_their_median_counts(folder, monkeypatch):
  clock, log = Clock(), []
  files = iter([1.0, 1.0, 7.0])  # Seconds; the mean is 3.
  secs = {"record": 2.0, "__getitem__": 4.0}

  def read_all(read, count):
    log.append(f"{read.__name__} {count}")
    clock.spend(secs[read.__name__])

  monkeypatch.setattr(storage, "time", clock)
  monkeypatch.setattr(storage, "_drop", lambda files: log.append("drop"))
  monkeypatch.setattr(
    storage, "_read_files", lambda f: clock.spend(next(files))
  )
  monkeypatch.setattr(storage, "_read_all", read_all)
  found = storage.read_speed(folder, 3)

  shards = (folder / "prepared" / "train").glob("*.array_record")
  mib = sum(len(file.read_bytes()) for file in shards) / 1024 / 1024
  assert found["files"] == pytest.approx(mib / 1.0)
  assert found["records"] == pytest.approx(mib / 2.0)
  assert found["examples"] == pytest.approx(mib / 4.0)
  assert found["share"] == pytest.approx(1 / 2)
  assert log == ["drop", "drop", "record 6", "drop", "__getitem__ 6"] * 3


def test_memory_is_looked_at_from_a_tenth_of_the_examples_on(monkeypatch):
  seen = iter([100.0, 120.0, 80.0, *[100.0] * 5, 110.0])
  drawn = []
  monkeypatch.setattr(storage.pipeline, "build_pipeline", lambda config: None)
  monkeypatch.setattr(
    storage.loader,
    "train_batches",
    lambda *args, **kwargs: map(drawn.append, itertools.count()),
  )
  monkeypatch.setattr(storage, "_family_memory", lambda: next(seen))
  found = storage._flatness(Path(), 10 * candidates.BATCH - 1)
  assert len(drawn) == 10
  assert found["examples"] == 10 * candidates.BATCH
  assert found["mib"] == 110.0
  assert found["spread"] == pytest.approx(20 / 100)  # 80 to 120.
  assert found["growth"] == pytest.approx(0.1)


def test_memory_of_a_process_is_in_mib():
  taken = np.ones(1 << 27, np.uint8)
  resident = next(
    int(line.split()[1]) / 1024
    for line in Path("/proc/self/status").read_text().splitlines()
    if line.startswith("VmRSS:")
  )
  # Libraries that it shares with others count in part.
  assert taken.nbytes / 2**20 < storage._memory(os.getpid()) <= 1.01 * resident


def test_size_of_a_record_is_in_kb(tmp_path):
  for i in range(4):
    write(tmp_path / "jpeg" / f"{i}.jpg", 90)
  for shard in ("0", "1"):  # Two records each.
    write(tmp_path / "prepared" / "train" / f"{shard}.array_record", 160_000)
    write(tmp_path / "copies" / "train" / f"{shard}.array_record", 50_000)
  write(tmp_path / "prepared" / "train" / "info.json", 7_000_000)
  assert data._sizes(tmp_path) == {"prepared": 80.0, "copies": 25.0}


def write(file, size):
  file.parent.mkdir(parents=True, exist_ok=True)
  file.write_bytes(bytes(size))
