"""Puts batches on the device ahead of the training loop."""

import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
POLL_SECS = 0.05  # How long `close` may go unnoticed by a full queue.


class Prefetcher(Generic[T]):
  """Iterates over `put(batch)` for each batch, `depth` of them ahead.

  A thread of its own takes batches from the iterator and puts them where they
  are used. `wait_secs` is how long the caller waited since the last `reset`:
  the time that input costs. Use as a context manager, or call `close`; either
  closes the iterator too.
  """

  def __init__(
    self,
    iterator: Iterator[Any],
    put: Callable[[Any], T],
    depth: int = 2,
  ):
    if depth < 1:
      raise ValueError(f"depth={depth}, expected at least 1.")
    self.wait_secs = 0.0
    self._queue: queue.Queue[_Item] = queue.Queue(maxsize=depth)
    self._closed = threading.Event()
    self._ended: _Item | None = None
    self._thread = threading.Thread(
      target=_fill,
      args=(iterator, put, self._queue, self._closed),
      name="mmjax-prefetch",
      daemon=True,
    )
    self._thread.start()
    # A forgotten Prefetcher ends its thread too.
    weakref.finalize(self, self._closed.set)

  def __iter__(self) -> "Prefetcher[T]":
    return self

  def __next__(self) -> T:
    """Returns the next batch.

    Raises:
      StopIteration: the iterator ended, or `close` was called.
      Exception: what the iterator or `put` raised, again on each call.
    """
    start = time.perf_counter()
    item = self._ended or self._get()
    self.wait_secs += time.perf_counter() - start
    if item.last:
      self._ended = item
      raise item.error or StopIteration
    return item.value

  def _get(self) -> "_Item":
    while not self._closed.is_set():
      try:
        return self._queue.get(timeout=POLL_SECS)
      except queue.Empty:
        continue
    return _Item(last=True)

  def reset(self) -> float:
    """Sets `wait_secs` to 0 and returns what it was."""
    waited, self.wait_secs = self.wait_secs, 0.0
    return waited

  def close(self) -> None:
    """Ends the thread, and drops the batches that were made ahead."""
    self._closed.set()
    self._thread.join()
    while not self._queue.empty():
      self._queue.get_nowait()

  def __enter__(self) -> "Prefetcher[T]":
    return self

  def __exit__(self, *unused) -> None:
    self.close()


class _Item:
  """A batch, or the end and why."""

  def __init__(
    self,
    value: Any = None,
    *,
    last: bool = False,
    error: BaseException | None = None,
  ):
    self.value = value
    self.last = last
    self.error = error


# A function, since a running method would keep its Prefetcher alive.
def _fill(iterator, put, batches, closed) -> None:
  try:
    for batch in iterator:
      if not _offer(batches, _Item(put(batch)), closed):
        return
    _offer(batches, _Item(last=True), closed)
  except Exception as e:  # Any fault belongs to the caller's thread.
    _offer(batches, _Item(last=True, error=e), closed)
  finally:
    close = getattr(iterator, "close", None)
    if close is not None:
      close()


def _offer(batches, item: _Item, closed: threading.Event) -> bool:
  while not closed.is_set():
    try:
      batches.put(item, timeout=POLL_SECS)
      return True
    except queue.Full:
      continue
  return False
