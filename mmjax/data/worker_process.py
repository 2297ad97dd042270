"""What runs in a worker process: batches of the steps it is asked for."""

import pickle
import signal
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import connection, shared_memory
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data import broken
from mmjax.data.examples import Pipeline

ALIGNMENT = 64  # Bytes; of the arrays in shared memory.
MAX_MEMORIES = 8  # That a worker keeps open; more than are used at once.

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class About:
  """What comes with a batch, or in its place."""

  seen: int  # Examples that came up.
  bad: tuple[broken.BadExample, ...]
  error: str = ""  # Why there is no batch.
  fault: bool = False  # Whether it is a fault of the program.
  spent: tuple[float, float] = (0.0, 0.0)  # See `input_time.Spent.take`.


@dataclass(frozen=True)
class Placed:
  """An array in shared memory."""

  start: int  # Byte.
  shape: tuple[int, ...]
  dtype: np.dtype

  def within(self, memory: shared_memory.SharedMemory) -> np.ndarray:
    return np.ndarray(
      self.shape, self.dtype, buffer=memory.buf, offset=self.start
    )


class Job:
  """What a worker does; a copy of it is in each."""

  def __init__(
    self,
    make: Callable[[], Callable[[int], Batch]],
    pipeline: Pipeline,
    num_workers: int,
  ):
    self.make = make
    self.pipeline = pipeline
    self.num_workers = num_workers

  def packed(self) -> bytes:
    """For another process.

    Raises:
      UserError: a part of the pipeline cannot be sent; says which.
    """
    import cloudpickle  # Sends also what a notebook defines.

    try:
      return cloudpickle.dumps(self)
    except Exception:  # Whatever a `__reduce__` does.
      _check_can_be_sent(self.pipeline)
      raise

  def serve(self, pipe: connection.Connection) -> None:
    """Makes batches until the main process is gone."""
    report = self.pipeline.in_worker(self.num_workers)
    assemble = self.make()
    memories: dict[str, shared_memory.SharedMemory] = {}
    while True:
      step, name = pipe.recv()
      if name and name not in memories:
        if len(memories) == MAX_MEMORIES:  # The oldest was replaced.
          memories.pop(next(iter(memories))).close()
        memories[name] = shared_memory.SharedMemory(name)
      batch: Batch = {}
      # Only text goes back: an exception of a user's class might not arrive.
      try:
        batch = assemble(step)
        about = About(*report.take(), spent=self.pipeline.spent.take())
      except errors.UserError as e:
        about = About(*report.take(), str(e))
      except Exception:
        about = About(*report.take(), _fault(), fault=True)
      pipe.send((step, *place(batch, memories.get(name)), about))


def _fault() -> str:
  return f"In a worker process:\n{traceback.format_exc()}"


def work(packed: bytes, pipe: connection.Connection) -> None:
  """Runs in a worker process."""
  # The main process decides what to do on Ctrl-C.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    try:
      job = pickle.loads(packed)
    except Exception:
      step, _ = pipe.recv()
      pipe.send((step, {}, 0, About(0, (), _fault(), fault=True)))
      return
    job.serve(pipe)
  except (EOFError, ConnectionError):
    pass  # The main process is gone.


def place(
  batch: Batch, memory: shared_memory.SharedMemory | None
) -> tuple[dict[str, Any], int]:
  """Copies arrays to shared memory.

  Returns:
    Where each is, or the batch itself if it does not fit; and the bytes that
    it takes.
  """
  placed: dict[str, Any] = {}
  end = 0
  for name, value in batch.items():
    if value.dtype.hasobject:
      placed[name] = value
      continue
    placed[name] = Placed(end, value.shape, value.dtype)
    end += -(-value.nbytes // ALIGNMENT) * ALIGNMENT
  if memory is None or memory.size < end:
    return batch, end
  for name, where in placed.items():
    if isinstance(where, Placed):
      where.within(memory)[...] = batch[name]
  return placed, end


def _check_can_be_sent(pipeline: Pipeline) -> None:
  """Names the part of a pipeline that cannot go to another process."""
  import cloudpickle

  parts = [("source", pipeline.source), ("tokenizer", pipeline.tokenizer)]
  parts += [("transform", transform) for transform in pipeline.transforms]
  for what, part in parts:
    try:
      cloudpickle.dumps(part)
    except Exception as e:  # Whatever a `__reduce__` does.
      name = f"{type(part).__module__}.{type(part).__qualname__}"
      raise errors.UserError(
        f"The {what} {name} cannot be sent to worker processes "
        f"({type(e).__name__}: {e}). Set data.workers=0, or leave what cannot "
        "be sent out of its __getstate__ and open it anew in __setstate__."
      ) from e
