import itertools

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
