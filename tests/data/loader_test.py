import itertools
import json
import threading

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import loader, order, pipeline
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


def test_one_then_two_then_one_process_see_each_example_once_an_epoch():
  # Stopped and restored with another number of processes at steps 3 and 7;
  # two epochs of 24 examples are 12 batches of 4.
  seen = []
  for first, last, processes in ((0, 3, 1), (3, 7, 2), (7, 12, 1)):
    parts = [
      _take(
        loader.train_batches(
          _pipeline(24),
          batch_size=4,
          seed=5,
          start_step=first,
          process_index=p,
          process_count=processes,
        ),
        last - first,
      )
      for p in range(processes)
    ]
    for rows in zip(*parts, strict=True):
      seen += _column(rows)
  assert sorted(seen[:24]) == sorted(seen[24:]) == list(range(24))
  whole = _take(loader.train_batches(_pipeline(24), batch_size=4, seed=5), 12)
  assert seen == _column(whole)


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
  """Numbers of which some cannot be read."""

  def __init__(self, length, bad=(3,)):
    super().__init__(length)
    self.bad = bad

  def __getitem__(self, index, /):
    if index in self.bad:
      raise OSError("the disk is gone")
    return super().__getitem__(index)


def _broken(length=10, bad=(3, 7), max_bad_fraction=0.5):
  return Pipeline(
    Broken(length, bad),
    [Number()],
    name="b",
    split="s",
    max_bad_fraction=max_bad_fraction,
  )


@pytest.mark.parametrize("num_threads", [0, 2])
def test_another_example_takes_the_place_of_a_broken_one(num_threads):
  whole = _take(loader.train_batches(_pipeline(), batch_size=4, seed=1), 5)
  source = _broken()
  batches = _take(
    loader.train_batches(source, batch_size=4, seed=1, num_threads=num_threads),
    5,
  )
  want = []
  for position, index in enumerate(_column(whole)):  # Of two epochs.
    if index in (3, 7):
      tried = order.walk(position // 10, index, 10, 1, 9).tolist()
      index = next(other for other in tried if other not in (3, 7))
    want.append(index)
  assert _column(batches) == want
  # The same numbers again: a change alters the data of every resumed run.
  assert want == [9, 1, 5, 2, 0, 8, 0, 4, 6, 8, 1, 6, 0, 5, 9, 4, 8, 8, 4, 2]
  assert len(source.bad) == 2


def test_replacements_are_the_same_after_a_resume_and_on_all_processes():
  whole = _take(loader.train_batches(_broken(), batch_size=8, seed=3), 6)
  parts = [
    _take(
      loader.train_batches(
        _broken(),
        batch_size=8,
        seed=3,
        start_step=2,
        process_index=p,
        process_count=2,
      ),
      4,
    )
    for p in range(2)
  ]
  for step in range(4):
    rows = [part[step] for part in parts]
    for name in ("index", "noise"):
      assert _column(rows, name) == _column([whole[step + 2]], name)


def test_a_broken_replacement_is_replaced_too():
  only = _broken(bad=range(9), max_bad_fraction=0.9)
  (batch,) = _take(loader.train_batches(only, batch_size=20, seed=0), 1)
  assert batch["index"].tolist() == [9] * 20


@pytest.mark.parametrize("num_threads", [0, 2])
def test_too_many_broken_examples_are_an_error_that_names_them(num_threads):
  batches = loader.train_batches(
    _broken(max_bad_fraction=0.1),
    batch_size=2,
    seed=0,
    num_threads=num_threads,
  )
  with pytest.raises(errors.UserError) as e:
    _take(batches, 10)
  text = str(e.value)
  assert "'b', split 's'" in text and "allows 1 of 10." in text
  assert "2  cannot be read: OSError: the disk is gone" in text
  assert "s[3]: " in text and "s[7]: " in text


def test_without_any_good_example_the_search_ends():
  none = _broken(bad=range(10), max_bad_fraction=1.0)
  for batches in (
    loader.train_batches(none, batch_size=2, seed=0),
    loader.eval_batches(none, batch_size=2),
  ):
    with pytest.raises(errors.UserError, match="nor can the 9 that were tried"):
      next(batches)


@pytest.mark.parametrize("process_count", [1, 2])
def test_evaluation_masks_broken_examples(process_count):
  # A batch in the middle, [4, 5, 6, 7], has none that is good.
  bad = (1, 4, 5, 6, 7, 9)
  found = []
  for p in range(process_count):
    batches = list(
      loader.eval_batches(
        _broken(bad=bad, max_bad_fraction=0.6),
        batch_size=4,
        process_index=p,
        process_count=process_count,
      )
    )
    assert len(batches) == 3
    for batch in batches:
      real = batch["example_mask"]
      assert len(batch["index"]) == len(real) == 4 // process_count
      assert not set(batch["index"]) & set(bad)  # Fillers are good ones.
      found += zip(batch["index"][real], batch["name"][real], strict=True)
  assert sorted(found) == [(i, f"number {i}") for i in (0, 2, 3, 8)]


def test_evaluation_counts_a_broken_example_once_in_many_passes():
  source = _broken()
  for _ in range(3):
    masks = _column(loader.eval_batches(source, batch_size=4), "example_mask")
    assert masks == [i < 10 and i not in (3, 7) for i in range(12)]
  assert len(source.bad) == 2


class Fault(Number):
  def __init__(self, error):
    self.error = error

  def __call__(self, example, rng, *, train):
    if example["n"] == 3:
      raise self.error
    return super().__call__(example, rng, train=train)


@pytest.mark.parametrize(
  "error", [TypeError("no number"), errors.UserError("no such field")]
)
def test_faults_of_the_program_and_the_config_are_not_skipped(error):
  made = Pipeline(Numbers(10), [Fault(error)], max_bad_fraction=1.0)
  with pytest.raises(type(error), match=str(error)):
    list(loader.eval_batches(made, batch_size=10))
  assert len(made.bad) == 0


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
