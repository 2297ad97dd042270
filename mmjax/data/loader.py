"""Pipeline -> batches of numpy arrays, each process its own rows.

The batch of a step is a function of (seed, step): nothing else has to be saved
to go on with the very next example, on any number of processes. Process p of P
gets the p-th of P equal runs of rows, so that the runs in order are the batch.

An example that cannot be used is skipped and counted (`Pipeline.bad`). In
training another takes its place, again a function of (seed, epoch, index); in
evaluation nothing does, lest one be counted twice: its row is masked.

Grain reads ahead with threads, or with processes if `Pipeline.workers` asks for
some, a whole batch at a time: its cost of about 30 microseconds an element is
then paid once a batch.
"""

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data import buckets, order, workers
from mmjax.data.examples import Pipeline

HostBatch = dict[str, np.ndarray]
MAX_TRIES = 100  # Others that are tried in place of a broken example.
NUM_THREADS = 2  # That make the batches of training.
MAX_STEPS = 2**40  # "For ever": Grain wants an end.


def train_batches(
  pipeline: Pipeline,
  *,
  batch_size: int | tuple[int, ...],
  seed: int,
  start_step: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = NUM_THREADS,
) -> Iterator[HostBatch]:
  """Returns batches for ever, from `start_step` on.

  Each epoch has an order of its own; a batch may span two of them. With
  `pipeline.buckets` a batch is of one bucket, and cut to its length.

  Args:
    batch_size: examples of all processes together; of each bucket, if they
      differ.
    start_step: the first step to return, for a run that goes on.
    num_threads: that make batches ahead of the caller; 0 makes them in the
      caller's thread. Not used with `pipeline.workers`.

  Raises:
    UserError: the batch does not divide over the processes; while iterating,
      a wrong config, or too many broken examples.
  """
  make = _bucketed if pipeline.buckets else _mixed
  how = (pipeline, batch_size, seed, process_index, process_count)
  assemble = make(*how)
  steps = range(start_step, MAX_STEPS)
  if pipeline.workers:
    # Each worker has an `assemble` of its own: closures cannot be sent.
    make_theirs = functools.partial(make, *how)
    return workers.read(steps, make_theirs, pipeline, pipeline.workers)
  return _read(steps, assemble, num_threads)


def _mixed(pipeline, batch_size, seed, process_index, process_count):
  """Makes batches of examples of any length."""
  if isinstance(batch_size, tuple):
    (batch_size,) = batch_size
  rows = _rows(batch_size, process_index, process_count)

  def assemble(step):
    positions = step * batch_size + rows
    epochs, indices = order.shuffle(positions, len(pipeline), seed)
    return _stack(
      pipeline,
      [
        _usable(pipeline, int(index), int(epoch), seed, True)
        for index, epoch in zip(indices, epochs, strict=True)
      ],
    )

  return assemble


def _bucketed(pipeline, batch_size, seed, process_index, process_count):
  """Makes batches of examples of one bucket each."""
  found = pipeline.buckets
  if isinstance(batch_size, int):
    batch_size = (batch_size,) * len(found.lengths)
  rows = [_rows(size, process_index, process_count) for size in batch_size]
  schedule = buckets.BucketOrder(found.counts, batch_size, seed)

  def assemble(step):
    bucket, number = schedule.at(step)
    among = found.members[bucket]
    positions = number * batch_size[bucket] + rows[bucket]
    epochs, places = order.shuffle(positions, len(among), seed)
    examples = [
      _usable(pipeline, int(among[place]), int(epoch), seed, True, among)
      for place, epoch in zip(places, epochs, strict=True)
    ]
    return found.trim(_stack(pipeline, examples), pipeline.specs, bucket)

  return assemble


def eval_batches(
  pipeline: Pipeline,
  *,
  batch_size: int,
  seed: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  limit: int | None = None,
  num_threads: int = 2,
) -> Iterator[HostBatch]:
  """Returns each example once, in order; all processes as many batches.

  The last batch is filled up by repeating its last example, and the row of a
  broken example by another one, both with `example_mask` False. Texts of the
  source come along as object arrays.

  Args:
    batch_size: examples of all processes together.
    seed: of the masks; nothing else is random.
    limit: stop after so many examples.

  Raises:
    UserError: as `train_batches`.
  """
  rows = _rows(batch_size, process_index, process_count)
  if limit is not None and limit < 1:
    raise errors.UserError(f"limit={limit}, expected at least 1 or None.")
  total = min(len(pipeline), len(pipeline) if limit is None else limit)

  def assemble(step):
    positions = step * batch_size + rows
    indices = np.minimum(positions, total - 1)
    # Fillers are computed once, not once each.
    made = {
      int(index): pipeline.try_example(int(index), 0, seed, False)
      for index in np.unique(indices)
    }
    good = [example for example in made.values() if example is not None]
    if not good:
      good = [_usable(pipeline, int(indices[0]), 0, seed, False)]
    examples = [made[int(index)] for index in indices]
    batch = _stack(pipeline, [good[-1] if e is None else e for e in examples])
    here = np.array([example is not None for example in examples])
    batch["example_mask"] = (positions < total) & here
    return batch

  num_batches = -(-total // batch_size)  # Rounded up.
  return _read(range(num_batches), assemble, num_threads)


def fingerprint(pipeline: Pipeline, seed: int) -> dict[str, Any]:
  """Says what the order of the data depends on, for checkpoints."""
  more = {}
  if found := pipeline.buckets:
    pairs = zip(found.lengths, found.counts, strict=True)
    more["buckets"] = [list(pair) for pair in pairs]
  return more | {
    "source": pipeline.name,
    "split": pipeline.split,
    "length": len(pipeline),
    "seed": seed,
  }


def _rows(
  batch_size: int, process_index: int, process_count: int
) -> np.ndarray:
  if batch_size < 1:
    raise errors.UserError(f"batch_size={batch_size}, expected at least 1.")
  if batch_size % process_count:
    raise errors.UserError(
      f"A batch of {batch_size} examples does not split over {process_count} "
      f"processes; set batch_size to a multiple of {process_count}."
    )
  if not 0 <= process_index < process_count:
    raise errors.UserError(
      f"process_index={process_index} of {process_count} processes."
    )
  size = batch_size // process_count
  return np.arange(process_index * size, (process_index + 1) * size)


def _usable(
  pipeline: Pipeline,
  index: int,
  epoch: int,
  seed: int,
  train: bool,
  among: np.ndarray | None = None,
) -> Mapping[str, Any]:
  """The example, or if it is broken the first of its walk that is not.

  The walk is `among` these indices, ascending; None = all.
  """
  example = pipeline.try_example(index, epoch, seed, train)
  if example is not None:
    return example
  if among is None:
    others = order.walk(epoch, index, len(pipeline), seed, MAX_TRIES)
  else:
    place = int(np.searchsorted(among, index))
    others = among[order.walk(epoch, place, len(among), seed, MAX_TRIES)]
  for other in others.tolist():
    example = pipeline.try_example(other, epoch, seed, train)
    if example is not None:
      return example
  raise errors.UserError(
    f"Example {index} of {pipeline.name!r}, split {pipeline.split!r}, cannot "
    f"be used, nor can the {len(others)} that were tried in its place.\n"
    f"{pipeline.bad.describe()}"
  )


def _stack(pipeline: Pipeline, examples: list[Mapping[str, Any]]) -> HostBatch:
  batch = {}
  for name, value in examples[0].items():
    column = [example[name] for example in examples]
    if isinstance(value, str) and name not in pipeline.specs:
      batch[name] = np.array(column, dtype=object)
    else:
      batch[name] = np.stack(column)
  return batch


def _read(steps: range, assemble, num_threads: int) -> Iterator[HostBatch]:
  import grain

  options = grain.ReadOptions(
    num_threads=num_threads,
    # Counts batches; the default, 500 of them, would fill the memory.
    prefetch_buffer_size=num_threads and max(2, num_threads),
  )
  dataset = grain.MapDataset.range(steps.start, steps.stop).map(assemble)
  return iter(dataset.to_iter_dataset(options))
