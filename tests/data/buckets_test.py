import collections

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import buckets, loader
from mmjax.data.pipeline import build_pipeline
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms.text import TextTransform

LENGTHS = (8, 16, 24)


class Words:
  """Most have 12 words or one less, so are in the second bucket."""

  def __init__(self, length=23):
    self.length = length

  def __len__(self):
    return self.length

  def __getitem__(self, index, /):
    if index == 5:
      raise OSError("the disk is gone")
    return {"text": " ".join(["a"] * (1, 12, 11, 18)[index % 4])}


def test_examples_lie_in_the_first_bucket_that_is_long_enough():
  tokenizer = TextTokenizer.load("starter")
  text = TextTransform(tokenizer=tokenizer, max_tokens=24, field="text")
  source = Words()
  found = buckets.make_buckets(LENGTHS, source, [text])
  where = {i: k for k, m in enumerate(found.members) for i in m.tolist()}
  assert sorted(where) == list(range(23))  # Each once, the broken one too.
  for i in set(range(23)) - {5}:
    tokens = tokenizer.num_tokens(source[i]["text"])
    assert where[i] == next(k for k, n in enumerate(LENGTHS) if tokens <= n)
  assert all(found.counts) and found.slots == ()
  assert where[5] == int(np.argmax(found.counts)) == 1


@pytest.mark.parametrize(
  ("counts", "sizes"),
  [((12, 30, 7), (4, 2, 2)), ((1, 100, 0), (8, 4, 2)), ((3, 2), (8, 8))],
)
def test_every_bucket_has_its_share_of_the_steps_in_turn(counts, sizes):
  schedule = buckets.BucketOrder(counts, sizes, seed=3)
  epoch_steps = sum(n / b for n, b in zip(counts, sizes, strict=True))
  epochs = 12
  steps = round(epochs * epoch_steps)
  places = [schedule.at(step) for step in range(steps)]
  given = collections.Counter(bucket for bucket, _ in places)
  for bucket, (n, b) in enumerate(zip(counts, sizes, strict=True)):
    # No batch twice, none left out, but those of the epoch that is going on.
    numbers = [m for k, m in places if k == bucket]
    assert len(set(numbers)) == len(numbers)
    whole = (epochs - 1) * n // b
    assert set(range(whole)) <= set(numbers)
    assert abs(given[bucket] - epochs * n / b) <= n / b + 1
  # Nor in the same order each epoch.
  assert schedule.examples(steps) == sum(sizes[k] for k, _ in places)
  for step in (0, 1, steps // 3):
    expected = sum(sizes[k] for k, _ in places[:step])
    assert schedule.examples(step) == expected


def test_buckets_come_in_an_order_of_the_seed():
  one, same, other = (
    [buckets.BucketOrder((40, 40), (4, 4), s).at(i)[0] for i in range(60)]
    for s in (0, 0, 1)
  )
  assert one == same != other
  assert one[:20] != one[20:40]


@pytest.fixture(scope="module")
def pipeline():
  made = build_pipeline(
    dict(
      source="synthetic",
      split="test",
      text=dict(max_tokens=24, mask=dict(rate=0.3)),
      buckets=(14, 24),
    )
  )
  assert all(made.buckets.counts)
  return made


def _take(made, steps, **kwargs):
  batches = loader.train_batches(made, seed=1, num_threads=0, **kwargs)
  return [next(batches) for _ in range(steps)]


def test_a_batch_is_cut_to_its_bucket_and_loses_nothing(pipeline):
  sizes = (6, 4)
  schedule = buckets.BucketOrder(pipeline.buckets.counts, sizes, 1)
  batches = _take(pipeline, 12, batch_size=sizes)
  assert len({b["text"].shape for b in batches}) == 2
  for step, batch in enumerate(batches):
    bucket, _ = schedule.at(step)
    length, slots = (14, 24)[bucket], pipeline.buckets.slots[bucket]
    for name in ("text", "text_mask", "text_masked"):
      assert batch[name].shape == (sizes[bucket], length)
    assert batch["text_hidden"].shape == (sizes[bucket], slots)
    eos = pipeline.tokenizer.eos_id
    assert ((batch["text"] == eos).sum(axis=1) == 1).all()
    assert batch["text_hidden_mask"].any(axis=1).all()
  # As much is hidden as without buckets: none of it was cut off.
  content = sum((b["text"] > 4).sum() for b in batches)
  hidden = sum(b["text_hidden_mask"].sum() for b in batches)
  assert 0.25 < hidden / content < 0.4


def test_one_then_two_then_one_process_see_the_batches_of_one(pipeline):
  whole = _take(pipeline, 9, batch_size=(6, 4))
  step = 0
  for last, processes in ((3, 1), (6, 2), (9, 1)):
    parts = [
      _take(
        pipeline,
        last - step,
        batch_size=(6, 4),
        start_step=step,
        process_index=p,
        process_count=processes,
      )
      for p in range(processes)
    ]
    for rows in zip(*parts, strict=True):
      for name, value in whole[step].items():
        together = np.concatenate([r[name] for r in rows])
        np.testing.assert_array_equal(together, value)
      step += 1


def test_every_example_comes_once_before_any_comes_again(monkeypatch, pipeline):
  seen = []
  real = pipeline.try_example

  def listen(index, epoch, seed, train):
    seen.append((epoch, index))
    return real(index, epoch, seed, train)

  monkeypatch.setattr(pipeline, "try_example", listen)
  sizes = (6, 4)
  counts = pipeline.buckets.counts
  epoch = sum(n / b for n, b in zip(counts, sizes, strict=True))
  _take(pipeline, round(2 * epoch), batch_size=sizes)
  assert len(set(seen)) == len(seen)
  first = [i for e, i in seen if e == 0]
  assert sorted(first) == list(range(len(pipeline)))


def test_a_broken_example_is_replaced_by_one_of_its_bucket(
  monkeypatch, pipeline
):
  real = pipeline.try_example
  short, long = (set(m.tolist()) for m in pipeline.buckets.members)
  bad = sorted(short)[: len(short) // 2]
  asked = []

  def broken(index, epoch, seed, train):
    asked.append(index)
    return None if index in bad else real(index, epoch, seed, train)

  monkeypatch.setattr(pipeline, "try_example", broken)
  schedule = buckets.BucketOrder(pipeline.buckets.counts, (6, 4), 1)
  for step in range(8):
    asked.clear()
    _take(pipeline, 1, batch_size=(6, 4), start_step=step)
    assert set(asked) <= (short, long)[schedule.at(step)[0]]


@pytest.mark.parametrize(
  ("budget", "multiple", "expected"),
  [(512, 8, (32, 16, 8)), (512, 1, (32, 16, 8)), (500, 4, (28, 12, 4))],
)
def test_a_budget_of_tokens_buys_more_short_texts(budget, multiple, expected):
  assert buckets.batch_sizes((16, 32, 64), budget, multiple) == expected


def test_a_budget_that_buys_too_little_is_refused():
  with pytest.raises(errors.UserError, match="at least 512"):
    buckets.batch_sizes((16, 64), 500, 8)


@pytest.mark.parametrize("lengths", [(16, 8, 24), (8, 8, 24), (8, 16), (1, 24)])
def test_lengths_that_make_no_sense_are_refused(lengths):
  with pytest.raises(errors.UserError, match="max_tokens=24"):
    build_pipeline(
      dict(
        source="synthetic",
        split="test",
        text=dict(max_tokens=24),
        buckets=lengths,
      )
    )


def test_buckets_without_texts_are_refused():
  with pytest.raises(errors.UserError, match="need config.data.text"):
    build_pipeline(
      dict(source="synthetic", image=dict(size=8), buckets=(8, 24))
    )
