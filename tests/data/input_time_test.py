import pickle
import threading

import numpy as np
import pytest

from mmjax.cli import progress
from mmjax.core.batch import FieldSpec
from mmjax.data import examples, input_time, workers


class Clock:
  """Time goes by only where something says that it takes some."""

  def __init__(self):
    self.now = 0.0

  def __call__(self):
    return self.now


class Source:
  """Reading takes `secs`; every third example cannot be read."""

  def __init__(self, clock, secs):
    self.clock, self.secs = clock, secs

  def __len__(self):
    return 9

  def __getitem__(self, index, /):
    self.clock.now += self.secs
    if index % 3 == 2:
      raise OSError("gone")
    return {"n": index}


class Burn:
  """A transform that takes `secs`."""

  def __init__(self, clock, secs):
    self.clock, self.secs = clock, secs

  def specs(self):
    return {"n": FieldSpec((), "int32", "", "")}

  def __call__(self, example, rng, *, train):
    self.clock.now += self.secs
    return {"n": np.int32(example["n"])}


def pipeline(clock, read, burn):
  made = examples.Pipeline(
    Source(clock, read),
    [Burn(clock, burn)],
    cache_mib=0,
    max_bad_fraction=1.0,
  )
  made.spent.clock = clock
  return made


def test_reading_and_all_the_rest_are_told_apart():
  clock = Clock()
  made = pipeline(clock, 0.5, 2.0)
  for i in range(9):
    made.try_example(i, 0, 0, True)
  # Six are good. Who blames a bad one reads it once more, for its name:
  assert made.spent.take() == (12 * 0.5, 12 * 0.5 + 6 * 2.0)
  assert made.spent.take() == (0.0, 0.0)


def test_threads_lose_nothing():
  spent = input_time.Spent()

  def work():
    for _ in range(2000):
      spent.add(read=1.0, whole=2.0)

  threads = [threading.Thread(target=work) for _ in range(4)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert spent.take() == (8000.0, 16000.0)
  spent.add(read=1.0)
  assert pickle.loads(pickle.dumps(spent)).take() == (0.0, 0.0)


CASES = {
  # Seconds of reading, transforms and putting; makers, cores; cause, advice.
  "storage": (3.0, 1.0, 0.5, 2, 8, "local disk"),
  "decode": (1.0, 3.0, 0.1, 7, 8, "--image_size"),
  "workers": (1.0, 3.0, 0.5, 2, 8, "data.workers=7"),
  "put": (1.0, 1.0, 2.0, 2, 8, "on the device"),
}


@pytest.mark.parametrize("cause", CASES)
def test_the_longest_part_is_named_with_what_to_change(cause):
  read, burn, put, makers, cores, advice = CASES[cause]
  clock = Clock()
  made = pipeline(clock, read, burn)
  watch = input_time.InputWatch(
    [made.spent], makers=makers, cores=cores, clock=clock
  )

  def slow(batch):
    clock.now += put
    return batch

  timed = watch.timed(slow)
  made.try_example(0, 0, 0, True)
  assert timed("a batch") == "a batch"
  row, hint = watch.row(0.4)
  want = np.array([read / makers, burn / makers, put])
  shares = [row[f"input/{n}_share"] for n in ("storage", "decode", "put")]
  np.testing.assert_allclose(shares, want / want.sum())
  assert row["input_cause"] == cause
  assert hint.startswith("The run waits for data 40% of the time. ")
  assert advice in hint
  assert watch.row(0.4) == ({}, "")  # Nothing was made since.


def test_hints_come_only_now_and_then_and_where_the_run_waits():
  spent = input_time.Spent()
  watch = input_time.InputWatch([spent], makers=2)
  hints = []
  for number in range(30):
    spent.add(read=1.0, whole=2.0)
    row, hint = watch.row(0.05 if number < 5 else 0.3)
    assert ("input_cause" in row) == (number >= 5)
    assert row["input/storage_share"] == 0.5
    if hint:
      hints.append(number)
  assert hints == [5, 15, 25]


class Slow(Source):
  """Says that reading took long; in a process of its own."""

  def __init__(self):
    pass

  def __getitem__(self, index, /):
    return {"n": index}


def test_what_workers_spent_is_counted_in_the_main_process():
  made = examples.Pipeline(Slow(), [Burn(Clock(), 0.0)])

  def assemble(step):
    made.spent.add(read=5.0, whole=7.0)
    return {"n": np.zeros(1)}

  # In this process: what a worker sends back, without the process.
  class Crew:
    def __init__(self, job):
      del job

    def ask(self, step):
      pass

    def get(self, step):
      batch = assemble(step)
      spent = made.spent.take()
      return batch, workers.worker_process.About(1, (), spent=spent)

    def close(self):
      pass

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(workers, "_Crew", Crew)
    assert len(list(workers.read(range(3), assemble, made, 1))) == 3
  assert made.spent.take() == (15.0, 21.0)


def test_the_line_of_the_log_names_the_cause(capsys):
  shown = progress.Progress("train", 10)
  row = {"kind": "train", "step": 4, "loss": 1.5, "input_wait_fraction": 0.37}
  shown.on_log({**row, "input_cause": "storage"})
  assert "waits for data 37% (storage)" in capsys.readouterr().out
