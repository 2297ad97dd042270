"""Batches made in worker processes, in the order of one process.

Worker w of W makes every W-th batch. A batch is a function of its step, so the
order is that of threads, and what a worker that died was at is given to another
in its place. Arrays come back in shared memory that belongs to the main
process: whoever dies, nothing is left behind.

What a worker finds broken is counted in the main process. Of what a pipeline
keeps in memory each worker has its share: W workers need no more than one
process, but seldom meet again what they kept.

Not by Grain's processes: each imports jax, which takes seconds; they end only
10 to 25 seconds after they are told to; and all stop if one dies.
"""

import logging
import multiprocessing
import shutil
import signal
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing import connection, shared_memory
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data import worker_process
from mmjax.data.examples import Pipeline
from mmjax.data.worker_process import Batch

DEPTH = 2  # Batches that a worker is asked for at once.
MAX_RESTARTS = 3  # After more deaths in a row the run stops,
FORGIVEN_AFTER = 1000  # unless so many batches came in between.
END_SECS = 5.0  # Given to a process to end by itself.
SHARED = Path("/dev/shm")  # Where Linux has shared memory.

log = logging.getLogger(__name__)


def read(
  steps: range,
  make: Callable[[], Callable[[int], Batch]],
  pipeline: Pipeline,
  num_workers: int,
) -> Iterator[Batch]:
  """Yields `make()(step)` for each step, made in worker processes.

  Args:
    steps: which; only so many are made as are asked for, and a few ahead.
    make: called in each worker, returns what makes a batch of examples of
      `pipeline`, or of the worker's copy of it.
    pipeline: its `bad` counts what is broken, of all workers.
    num_workers: processes.

  Raises:
    UserError: as what makes a batch; a part cannot be sent to a process; or
      workers died again and again.
    RuntimeError: another fault in a worker, with its traceback.
  """
  crew = _Crew(worker_process.Job(make, pipeline, num_workers))
  try:
    for step in steps[: DEPTH * num_workers]:
      crew.ask(step)
    for number, step in enumerate(steps):
      batch, about = crew.get(number)
      pipeline.bad.count(about.seen, about.bad)
      read, whole = about.spent
      pipeline.spent.add(read=read, whole=whole)
      if about.error:
        raise (RuntimeError if about.fault else errors.UserError)(about.error)
      if (ahead := step + DEPTH * num_workers) < steps.stop:
        crew.ask(ahead)
      yield batch
  finally:
    crew.close()


class _Worker:
  """A process, what it was asked for, and where it puts it."""

  def __init__(self, number: int):
    self.number = number
    self.process: Any = None
    self.pipe: Any = None
    # Steps in order, each with the number of its memory.
    self.asked: deque[tuple[int, int]] = deque()
    self.memories: list[shared_memory.SharedMemory | None] = [None] * DEPTH

  def start(self, packed: bytes) -> None:
    # A forked process would have the locks of jax's threads, not the threads.
    context = multiprocessing.get_context("spawn")
    self.pipe, theirs = context.Pipe()
    self.process = context.Process(
      target=worker_process.work,
      args=(packed, theirs),
      name=f"mmjax-worker-{self.number}",
      daemon=True,
    )
    self.process.start()
    theirs.close()  # The worker has the only one: its death ends the pipe.
    for step, turn in self.asked:
      self.send(step, turn)

  def ask(self, step: int, turn: int) -> None:
    self.asked.append((step, turn))
    self.send(step, turn)

  def send(self, step: int, turn: int) -> None:
    memory = self.memories[turn]
    try:
      self.pipe.send((step, memory.name if memory else ""))
    except OSError:
      pass  # It died; who waits for the step will see.

  def receive(self) -> tuple[Batch, worker_process.About]:
    """Waits for what was asked for first.

    Raises:
      EOFError: the process died.
      OSError: so it did.
    """
    connection.wait([self.pipe, self.process.sentinel])
    done, placed, size, about = self.pipe.recv()
    step, turn = self.asked.popleft()
    assert done == step, (done, step)
    memory = self.memories[turn]
    batch = {
      name: np.array(value.within(memory))
      if isinstance(value, worker_process.Placed)
      else value
      for name, value in placed.items()
    }
    if size > (memory.size if memory else 0):
      self.memories[turn] = _larger(memory, size)
    return batch, about

  def end(self) -> None:
    self.pipe.close()
    self.process.join(END_SECS)
    if self.process.is_alive():
      self.process.kill()
      self.process.join(END_SECS)


def _larger(
  memory: shared_memory.SharedMemory | None, size: int
) -> shared_memory.SharedMemory | None:
  """Memory for batches of about a size; None if there is no room."""
  if memory is not None:
    memory.close()
    memory.unlink()
  size += size // 8
  if SHARED.is_dir() and shutil.disk_usage(SHARED).free < size:
    log.warning(
      "%s has no room for %d MiB: a worker sends its batches through a pipe, "
      "which is slower. Enlarge it (docker run --shm-size=4g).",
      SHARED,
      size >> 20,
    )
    return None
  return shared_memory.SharedMemory(create=True, size=size)


class _Crew:
  """Worker processes that make batches in turn."""

  def __init__(self, job: worker_process.Job):
    self._job = job
    self._workers = [_Worker(i) for i in range(job.num_workers)]
    self._deaths = 0
    self._since = 0  # Batches since the last death.
    self._asked = 0
    # Also when the program ends, or this is forgotten.
    self.close = weakref.finalize(self, _end, self._workers)
    packed = job.packed()
    for worker in self._workers:
      worker.start(packed)

  def ask(self, step: int) -> None:
    """Has a batch made."""
    turn, number = divmod(self._asked, len(self._workers))
    self._workers[number].ask(step, turn % DEPTH)
    self._asked += 1

  def get(self, number: int) -> tuple[Batch, worker_process.About]:
    """Waits for the batch that was asked for as the `number`-th."""
    worker = self._workers[number % len(self._workers)]
    while True:
      try:
        made = worker.receive()
      except (EOFError, OSError):
        self._replace(worker)
      else:
        self._since += 1
        return made

  def _replace(self, worker: _Worker) -> None:
    """Starts a process in place of one that died, at the same batches."""
    worker.end()
    self._deaths = 1 if self._since >= FORGIVEN_AFTER else self._deaths + 1
    self._since = 0
    what = (
      f"Worker {worker.number} (process {worker.process.pid}) "
      f"{_why(worker.process.exitcode)} It was at step {worker.asked[0][0]}."
    )
    if self._deaths > MAX_RESTARTS:
      raise errors.UserError(
        f"{what} {MAX_RESTARTS} that died before were replaced; "
        "data.workers=0 makes batches in threads of the main process."
      )
    log.warning("%s Another takes its place.", what)
    worker.start(self._job.packed())


def _end(workers: list[_Worker]) -> None:
  for worker in workers:
    if worker.process is not None:
      worker.pipe.close()
      worker.process.terminate()
  for worker in workers:
    if worker.process is not None:
      worker.end()
    for memory in filter(None, worker.memories):
      memory.close()
      memory.unlink()


def _why(status: int | None) -> str:
  if status is None or status >= 0:
    return (
      f"ended by itself with status {status}; a script that uses workers "
      'needs `if __name__ == "__main__":`.'
    )
  name = signal.Signals(-status).name
  likely = {
    "SIGKILL": ", most likely since memory was full (`dmesg` tells): lower "
    "data.workers or data.cache_mib",
    "SIGBUS": f", most likely since {SHARED} was full: enlarge it (docker run "
    "--shm-size=4g), or lower data.workers",
    "SIGSEGV": ", a fault in a library that decodes",
  }
  return f"was ended by {name}{likely.get(name, '')}."
