import multiprocessing
import os
import signal
import threading
import time

import cloudpickle
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import broken, loader, pipeline, workers

CONFIG = dict(
  source="synthetic",
  image=dict(size=16, crop_scale=(0.5, 1.0), color_jitter=0.2),
  text=dict(max_tokens=8, mask=dict(rate=0.3)),
)


def _batches(start_step=0, **changes):
  made = pipeline.build_pipeline(CONFIG | changes)
  batches = loader.train_batches(
    made, batch_size=6, seed=1, start_step=start_step, num_threads=0
  )
  return made, batches


def _same(a, b):
  return list(a) == list(b) and all(
    a[k].dtype == b[k].dtype and np.array_equal(a[k], b[k]) for k in a
  )


def _processes():
  return [
    p
    for p in multiprocessing.active_children()
    if p.name.startswith("mmjax-worker")
  ]


def test_a_killed_worker_is_replaced_and_no_batch_lost(caplog):
  first = 5
  _, want = _batches(first)
  _, made = _batches(first, workers=2)
  for _ in range(4):  # The later ones by shared memory.
    assert _same(next(made), next(want))

  victim = min(_processes(), key=lambda p: p.name)
  os.kill(victim.pid, signal.SIGKILL)
  killed = time.time()
  for _ in range(8):
    assert _same(next(made), next(want))

  (record,) = caplog.records
  assert record.created - killed < 30
  said = record.getMessage()
  assert f"Worker 0 (process {victim.pid}) was ended by SIGKILL" in said
  assert "memory" in said and "data.workers" in said
  made.close()
  assert not _processes()


@pytest.fixture
def damaged(tmp_path, rng):
  """A folder of 40 pictures of which every fourth is empty."""
  from PIL import Image

  for i in range(40):
    file = tmp_path / f"{i:02}.png"
    Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    if i % 4 == 0:
      file.write_bytes(b"")
  return dict(
    source="folder", path=str(tmp_path), image=dict(size=8), text=None
  )


def test_what_all_workers_find_broken_is_counted_once(damaged):
  made, batches = _batches(**damaged, max_bad_fraction=0.5, workers=2)
  alone, want = _batches(**damaged, max_bad_fraction=0.5)
  for _ in range(40 // 6 * 2):  # Nearly two epochs.
    assert _same(next(batches), next(want))
  batches.close()
  assert len(made.bad) == len(alone.bad) == 10
  assert made.bad.reasons == alone.bad.reasons


def test_too_many_broken_ones_of_all_workers_stop_the_run(damaged):
  _, batches = _batches(**damaged, max_bad_fraction=0.2, workers=2)
  with pytest.raises(errors.UserError, match=r"9 of the .* allows 8 of 40"):
    for _ in range(40):
      next(batches)
  assert not _processes()


class Locked:
  """A source that cannot go to another process."""

  def __init__(self):
    self.lock = threading.Lock()

  def __len__(self):
    return 10

  def __getitem__(self, index, /):
    return {"n": index}


def _pipeline_of(source, transforms=()):
  made = pipeline.Pipeline(source, transforms, name="mine", split="train")
  made.workers = 1
  return made


def test_what_cannot_be_sent_is_named():
  batches = loader.train_batches(_pipeline_of(Locked()), batch_size=2, seed=0)
  with pytest.raises(
    errors.UserError, match=r"source .*Locked cannot be sent.*data.workers=0"
  ):
    next(batches)


def test_faults_in_a_worker_come_with_their_traceback_and_others_with_theirs():
  def assemble(step):
    if step == 2:
      os._exit(7)
    if step:
      raise ZeroDivisionError("in the midst")
    return {"step": np.array([step])}

  made = _pipeline_of(list(range(10)))
  batches = workers.read(range(2), lambda: assemble, made, 1)
  assert next(batches)["step"].tolist() == [0]
  with pytest.raises(RuntimeError, match="(?s)Traceback.*in the midst"):
    next(batches)


def test_a_worker_that_dies_again_and_again_stops_the_run(monkeypatch):
  monkeypatch.setattr(workers, "MAX_RESTARTS", 1)
  batches = workers.read(
    range(3), lambda: lambda step: os._exit(7), _pipeline_of([{}]), 1
  )
  with pytest.raises(
    errors.UserError, match=r"Worker 0 .* status 7.* at step 0\. 1 that died"
  ):
    next(batches)


def test_batches_of_any_size_arrive(monkeypatch):
  sizes = [3, 50, 3, 2000, 7]

  def assemble(step):
    return {
      "x": np.arange(sizes[step] ** 2).reshape(sizes[step], -1),
      "flag": np.array(step % 2 == 0),
    }

  made = list(workers.read(range(5), lambda: assemble, _pipeline_of([{}]), 1))
  assert [b["x"].shape for b in made] == [(n, n) for n in sizes]
  for step, batch in enumerate(made):
    assert _same(batch, assemble(step))
    assert type(batch["x"]) is np.ndarray


def test_a_worker_keeps_its_share_of_what_is_kept_in_memory():
  made = pipeline.build_pipeline(CONFIG | dict(cache_mib=64))
  report = made.in_worker(4)
  assert made._cache.capacity == 16 * 2**20
  made.try_example(0, 0, 0, True)
  assert report.take() == (1, ()) and report.take() == (0, ())


def test_a_broken_example_survives_the_way():
  import pickle

  bad = broken.BadExample("why", source="s", split="t", index=3, key="k")
  copy = pickle.loads(pickle.dumps(bad))
  assert str(copy) == str(bad) and vars(copy) == vars(bad)


def test_a_negative_number_of_workers_is_refused():
  with pytest.raises(errors.UserError, match="workers=-1, expected 0 or more"):
    pipeline.build_pipeline(CONFIG | dict(workers=-1))


def test_the_starter_set_can_be_sent(starter_path):
  made = pipeline.build_pipeline(
    CONFIG | dict(source="starter_emoji", path=starter_path)
  )
  copy = cloudpickle.loads(cloudpickle.dumps(made))
  assert _same(copy.example(3, 0, 0, True), made.example(3, 0, 0, True))
