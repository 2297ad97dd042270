"""Where the time of the input goes, and what to change where a run waits.

A run that waits for data is slower than its model: the log says how long it
waited, whether reading or decoding took the time, and what helps.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

WORTH_A_WORD = 0.1  # Share of the time that a run waits.
QUIET_ROWS = 10  # Rows of the log from one hint to the next.


class Spent:
  """Seconds that examples took, of all threads together; safe for threads."""

  def __init__(self, clock: Callable[[], float] = time.perf_counter):
    self.clock = clock
    self._lock = threading.Lock()
    self._read = self._whole = 0.0

  def __reduce__(self):
    return Spent, ()  # What was counted stays where it was.

  def add(self, *, read: float = 0.0, whole: float = 0.0) -> None:
    """Counts seconds of reading, or of all of an example, reading included."""
    with self._lock:
      self._read += read
      self._whole += whole

  def take(self) -> tuple[float, float]:
    """What was counted since the last call: of reading, and of all."""
    with self._lock:
      taken = self._read, self._whole
      self._read = self._whole = 0.0
    return taken


class InputWatch:
  """Says of each row of the log where the time of its input went.

  Args:
    spent: of each pipeline.
    makers: threads or processes that make examples at the same time.
    cores: of this machine; None = those that this process may use.
    clock: seconds.
  """

  def __init__(
    self,
    spent: Iterable[Spent],
    *,
    makers: int,
    cores: int | None = None,
    clock: Callable[[], float] = time.perf_counter,
  ):
    self._spent = tuple(spent)
    self._makers = makers
    self._cores = cores or num_cores()
    self._clock = clock
    self._put = 0.0
    self._quiet = 0  # Rows until the next hint.

  def timed(self, put: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`put`, which one thread calls, with its time counted."""

    def run(batch):
      start = self._clock()
      try:
        return put(batch)
      finally:
        self._put += self._clock() - start

    return run

  def row(self, waited: float) -> tuple[dict[str, Any], str]:
    """Describes the time since the last row.

    Args:
      waited: share of the time that the loop waited for batches.

    Returns:
      `input/<part>_share` of what it takes to make a batch: of reading from
      storage, decoding (and all other transforms) and putting it on the
      device; if the run waited, `input_cause`; and a hint, mostly "".
    """
    taken = [spent.take() for spent in self._spent]
    read, whole = (sum(column) for column in zip(*taken, strict=True))
    put, self._put = self._put, 0.0
    parts = {
      "storage": read / self._makers,
      "decode": max(whole - read, 0.0) / self._makers,
      "put": put,
    }
    total = sum(parts.values())
    if not total:
      return {}, ""
    row: dict[str, Any] = {
      f"input/{name}_share": secs / total for name, secs in parts.items()
    }
    self._quiet = max(self._quiet - 1, 0)
    if waited <= WORTH_A_WORD:
      return row, ""
    row["input_cause"] = self._cause(parts)
    if self._quiet:
      return row, ""
    self._quiet = QUIET_ROWS
    share = row[f"input/{_part(row['input_cause'])}_share"]
    return row, self._hint(row["input_cause"], waited, share)

  def _cause(self, parts: dict[str, float]) -> str:
    longest = max(parts, key=lambda name: parts[name])
    # One core is left to the training loop.
    if longest == "decode" and self._makers < self._cores - 1:
      return "workers"
    return longest

  def _hint(self, cause: str, waited: float, share: float) -> str:
    more = max(self._cores - 1, self._makers)
    advice = {
      "storage": (
        "reading from storage. Copy the data to a local disk; shards that "
        "`mmjax data prepare` writes are fast in any order; or read more at "
        f"once with data.workers={2 * self._makers}."
      ),
      "decode": (
        f"decoding and transforms, on all {self._cores} cores. `mmjax data "
        "prepare --image_size=...` stores pictures near the size that is used; "
        "more data.cache_mib keeps decoded ones."
      ),
      "workers": (
        f"decoding and transforms, {self._makers} at a time on {self._cores} "
        f"cores. Set data.workers={more}; `mmjax data prepare "
        "--image_size=...` makes each example cheaper."
      ),
      "put": (
        "putting batches on the device. Smaller fields help, such as "
        "data.image.size or text.max_tokens."
      ),
    }[cause]
    return (
      f"The run waits for data {waited:.0%} of the time. {share:.0%} of what "
      f"a batch takes is {advice}"
    )


def _part(cause: str) -> str:
  return "decode" if cause == "workers" else cause


def num_cores() -> int:
  """Cores that this process may use."""
  try:
    return len(os.sched_getaffinity(0))
  except AttributeError:  # Not on macOS.
    return os.cpu_count() or 1
