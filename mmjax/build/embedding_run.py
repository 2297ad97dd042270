"""All inputs through an `Embedder`, in their order, into a table on disk."""

import collections
from collections.abc import Callable, Iterator
from concurrent import futures
from dataclasses import dataclass

import numpy as np

from mmjax.build import embedding_file
from mmjax.build.embedding import Embedder, Fields
from mmjax.build.embedding_inputs import Folder, Lines, Skipped
from mmjax.core import errors

NUM_THREADS = 2  # That read and decode.
AHEAD = 3  # Batches that are read before their turn.

Progress = Callable[[int, int], None]  # Inputs done, of how many.


@dataclass
class Summary:
  """What was embedded."""

  num_rows: int
  shapes: dict[str, tuple[int, ...]]
  present: dict[str, int]  # Rows that have it, by modality.
  num_cut: int  # Texts that are longer than what the model reads.


def embed_all(
  embedder: Embedder,
  given: Folder | Lines,
  skipped: Skipped,
  table: embedding_file.Table,
  on_progress: Progress,
) -> Summary:
  """Embeds all inputs in their order and saves the table.

  In memory are the ids and a few batches.

  Raises:
    UserError: something cannot be used and may not be skipped, or nothing can.
  """
  ids: list[str] = []
  present: collections.Counter[str] = collections.Counter()
  num_cut = 0
  for batch in _read(embedder, given, embedder.batch_size):
    for reason in batch.bad:
      skipped.add(reason)
    on_progress(batch.stop, len(given))
    if not batch.indices:
      continue
    start = len(ids)
    ids += [given.ids[index] for index in batch.indices]
    num_cut += batch.num_cut
    for name in sorted(given.modalities):
      have = np.array([name in row for row in batch.rows], bool)
      table.write(name + embedding_file.PRESENT, start, have)
      present[name] += int(have.sum())
      if have.any():
        rows = [row[name] for row in batch.rows if name in row]
        for column, values in embedder(name, rows).items():
          whole = np.zeros((len(have), *values.shape[1:]), values.dtype)
          whole[have] = values
          table.write(column, start, whole)
  if not ids:
    raise errors.UserError(
      f"None of the {len(given):,} inputs can be used:\n  "
      + "\n  ".join(skipped.first)
    )
  table.write_texts(given.label, ids)
  return Summary(len(ids), table.save(len(ids)), dict(present), num_cut)


@dataclass
class _Batch:
  """Examples that were read; those that cannot be used are left out."""

  stop: int  # Index behind the last.
  indices: list[int]
  rows: list[dict[str, Fields]]  # By modality.
  bad: list[str]
  num_cut: int = 0


def _read(embedder, given, size) -> Iterator[_Batch]:
  """All batches in order; threads read some of them ahead."""

  def load(start):
    batch = _Batch(min(start + size, len(given)), [], [], [])
    for index in range(start, batch.stop):
      try:
        row = {}
        for name, value in given[index].items():
          row[name] = embedder.fields(name, value)
          batch.num_cut += embedder.is_cut(name, value, row[name])
      except errors.UserError as e:
        raise errors.UserError(f"{given.where(index)}: {e}") from e
      except ValueError as e:
        batch.bad.append(f"{given.where(index)}: {e}")
      else:
        batch.indices.append(index)
        batch.rows.append(row)
    return batch

  with futures.ThreadPoolExecutor(NUM_THREADS) as pool:
    waiting: collections.deque[futures.Future[_Batch]] = collections.deque()
    for start in range(0, len(given), size):
      waiting.append(pool.submit(load, start))
      if len(waiting) > AHEAD:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
