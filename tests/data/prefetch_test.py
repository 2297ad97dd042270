import gc
import itertools
import threading
import time

import pytest

from mmjax.data.prefetch import Prefetcher


def _alive():
  return [t for t in threading.enumerate() if t.name == "mmjax-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
  yield
  gc.collect()
  deadline = time.monotonic() + 1
  while _alive() and time.monotonic() < deadline:
    time.sleep(0.01)
  assert not _alive()


def test_batches_come_in_order_through_put():
  with Prefetcher(iter(range(10)), lambda x: x * x) as batches:
    assert list(batches) == [x * x for x in range(10)]
    with pytest.raises(StopIteration):
      next(batches)


def test_put_runs_ahead_by_the_depth_in_a_thread_of_its_own():
  done, threads = [], set()

  def put(x):
    done.append(x)
    threads.add(threading.current_thread())
    return x

  with Prefetcher(itertools.count(), put, depth=3) as batches:
    assert next(batches) == 0
    deadline = time.monotonic() + 1
    while len(done) < 5 and time.monotonic() < deadline:
      time.sleep(0.01)
    time.sleep(0.05)
    # Taken: 0. Waiting: 1, 2, 3. In the thread's hands: 4.
    assert done == [0, 1, 2, 3, 4]
    assert threading.current_thread() not in threads


def test_errors_reach_the_caller_after_the_batches_before_them():
  def broken():
    yield 1
    raise KeyError("gone")

  with Prefetcher(broken(), lambda x: x) as batches:
    assert next(batches) == 1
    for _ in range(2):
      with pytest.raises(KeyError, match="gone"):
        next(batches)
  with Prefetcher(iter([0]), lambda x: 1 / x) as batches:
    with pytest.raises(ZeroDivisionError):
      next(batches)


def test_waiting_is_measured():
  def slow():
    for i in range(2):
      time.sleep(0.1)
      yield i

  with Prefetcher(slow(), lambda x: x) as batches:
    next(batches)
    assert 0.05 < batches.wait_secs < 1
    assert batches.reset() > 0.05
    assert batches.wait_secs == 0


def test_close_ends_quickly_and_closes_the_iterator():
  closed = []

  def endless():
    try:
      yield from itertools.count()
    finally:
      closed.append(True)

  batches = Prefetcher(endless(), lambda x: x)
  next(batches)
  start = time.perf_counter()
  batches.close()
  batches.close()
  assert time.perf_counter() - start < 0.5
  assert closed == [True]
  with pytest.raises(StopIteration):
    next(batches)


def test_a_forgotten_prefetcher_ends_its_thread():
  batches = Prefetcher(itertools.count(), lambda x: x)
  next(batches)
  del batches  # The fixture checks the rest.


def test_depth_has_to_be_positive():
  with pytest.raises(ValueError, match="depth=0"):
    Prefetcher(iter([]), lambda x: x, depth=0)
