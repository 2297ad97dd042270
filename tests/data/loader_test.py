import itertools
import json
import threading

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import loader, pipeline
from mmjax.data.examples import Pipeline


class Number:
  """Adds the index of the example and something random."""

  def specs(self):
    return {
      "index": FieldSpec((), "int64"),
      "noise": FieldSpec((), "float64"),
    }

  def __call__(self, example, rng, *, train):
    return {
      **example,
      "index": np.int64(example["n"]),
      "noise": np.float64(rng.random()),
    }


class Numbers:
  def __init__(self, length):
    self.length = length

  def __len__(self):
    return self.length

  def __getitem__(self, index, /):
    return {"n": index, "name": f"number {index}"}


def _pipeline(length=10):
  return Pipeline(Numbers(length), [Number()], name="numbers", split="train")


def _take(batches, count):
  return list(itertools.islice(batches, count))


def _column(batches, name="index"):
  return np.concatenate([batch[name] for batch in batches]).tolist()


@pytest.mark.parametrize("num_threads", [0, 1, 2])
def test_each_epoch_holds_each_example_once_in_another_order(num_threads):
  batches = _take(
    loader.train_batches(
      _pipeline(), batch_size=4, seed=1, num_threads=num_threads
    ),
    5,
  )
  order = _column(batches)
  assert sorted(order[:10]) == sorted(order[10:]) == list(range(10))
  assert order[:10] != order[10:]


def test_starting_later_goes_on_with_the_very_next_batch():
  whole = _take(loader.train_batches(_pipeline(), batch_size=4, seed=1), 8)
  rest = _take(
    loader.train_batches(_pipeline(), batch_size=4, seed=1, start_step=5), 3
  )
  for name in ("index", "noise"):
    assert _column(whole[5:], name) == _column(rest, name)


@pytest.mark.parametrize("process_count", [2, 4])
def test_rows_of_all_processes_are_the_batch_of_one(process_count):
  whole = _take(loader.train_batches(_pipeline(), batch_size=8, seed=3), 4)
  parts = [
    _take(
      loader.train_batches(
        _pipeline(),
        batch_size=8,
        seed=3,
        start_step=1,
        process_index=p,
        process_count=process_count,
      ),
      3,
    )
    for p in range(process_count)
  ]
  for step in range(3):
    rows = [part[step] for part in parts]
    assert all(len(r["index"]) == 8 // process_count for r in rows)
    for name in ("index", "noise"):
      assert _column(rows, name) == _column([whole[step + 1]], name)


def test_seed_changes_the_order():
  def order(seed):
    return _column(
      _take(loader.train_batches(_pipeline(), batch_size=5, seed=seed), 2)
    )

  assert order(0) == order(0)
  assert order(0) != order(1)


def test_a_batch_may_be_larger_than_the_data():
  (batch,) = _take(loader.train_batches(_pipeline(3), batch_size=9, seed=0), 1)
  assert np.bincount(batch["index"]).tolist() == [3, 3, 3]


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_pads_the_last_batch_for_every_process(process_count):
  found, counts = [], []
  for p in range(process_count):
    batches = list(
      loader.eval_batches(
        _pipeline(),
        batch_size=4,
        process_index=p,
        process_count=process_count,
      )
    )
    counts.append(len(batches))
    for batch in batches:
      assert batch["index"].shape == (4 // process_count,)
      assert batch["example_mask"].dtype == bool
    found += [
      index
      for batch in batches
      for index, real in zip(batch["index"], batch["example_mask"], strict=True)
      if real
    ]
  assert counts == [3] * process_count
  assert sorted(found) == list(range(10))


def test_evaluation_is_in_order_and_keeps_texts():
  batches = list(loader.eval_batches(_pipeline(), batch_size=4, limit=6))
  assert _column(batches) == [0, 1, 2, 3, 4, 5, 5, 5]
  assert _column(batches, "example_mask") == [True] * 6 + [False] * 2
  assert batches[0]["name"].dtype == object
  assert batches[0]["name"][3] == "number 3"
  (train,) = _take(loader.train_batches(_pipeline(), batch_size=2, seed=0), 1)
  assert set(train) == {"index", "noise"}


def test_evaluation_masks_are_the_same_each_time():
  once, again = (
    _column(loader.eval_batches(_pipeline(), batch_size=4), "noise")
    for _ in range(2)
  )
  assert once == again


@pytest.mark.parametrize(
  "arguments, message",
  [
    (dict(batch_size=0), "batch_size=0"),
    (dict(batch_size=6, process_count=4), "multiple of 4"),
    (dict(batch_size=4, process_index=2, process_count=2), "process_index=2"),
  ],
)
def test_mistakes_are_told_before_the_first_batch(arguments, message):
  with pytest.raises(errors.UserError, match=message):
    loader.train_batches(_pipeline(), seed=0, **arguments)
  with pytest.raises(errors.UserError, match=message):
    loader.eval_batches(_pipeline(), **arguments)
  with pytest.raises(errors.UserError, match="limit=0"):
    loader.eval_batches(_pipeline(), batch_size=2, limit=0)


class Broken(Numbers):
  def __getitem__(self, index, /):
    if index == 3:
      raise OSError("the disk is gone")
    return super().__getitem__(index)


@pytest.mark.parametrize("num_threads", [0, 2])
def test_a_broken_example_is_named(num_threads):
  broken = Pipeline(Broken(5), [Number()], name="b", split="s")
  batches = loader.eval_batches(broken, batch_size=2, num_threads=num_threads)
  next(batches)
  with pytest.raises(
    errors.UserError, match="Example 3 of 'b', split 's'.*gone"
  ):
    list(batches)


class Counting(Numbers):
  reads = 0

  def __getitem__(self, index, /):
    self.reads += 1
    return super().__getitem__(index)


def test_few_batches_are_made_ahead():
  source = Counting(10_000)
  made = Pipeline(source, [Number()], cache_mib=0)
  batches = loader.train_batches(made, batch_size=10, seed=0, num_threads=2)
  next(batches)
  threading.Event().wait(0.3)
  assert source.reads <= 10 * 5
  batches.close()


def test_real_pictures_come_as_uint8_batches():
  made = pipeline.build_pipeline(
    dict(source="synthetic", image=dict(size=16), text=dict(max_tokens=8))
  )
  batches = loader.train_batches(made, batch_size=6, seed=0)
  for batch in _take(batches, 2):
    for name, spec in made.specs.items():
      assert spec.matches(batch[name]) and len(batch[name]) == 6
    assert batch["image"].std() > 1


def test_fingerprint_is_plain_and_tells_what_the_order_depends_on():
  print_ = loader.fingerprint(_pipeline(), 7)
  assert json.loads(json.dumps(print_)) == {
    "source": "numbers",
    "split": "train",
    "length": 10,
    "seed": 7,
  }
