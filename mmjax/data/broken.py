"""Examples that cannot be used: what is wrong with one, how many there are."""

import functools
import logging
import math
import re
import threading
from collections import Counter
from collections.abc import Sequence

from mmjax.core import errors

# Fewer examples seen count as so many (or as all there are): of the first
# hundred, two are soon broken by chance.
MIN_SEEN = 1000
MAX_NAMED = 100  # In the log; further ones are only counted.
NUM_LISTED = 10  # Reasons and examples in the error that stops a run.
# What differs between examples that are broken in the same way: addresses in
# memory, paths, and numbers that are not the end of a name such as uint8.
ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
PATH = re.compile(r"'[^']*[/\\][^']*'")
NUMBER = re.compile(r"(?<![A-Za-z]{2})(?<!\d)\d+(?:\.\d+)?")

log = logging.getLogger(__name__)


class BadExample(ValueError):
  """This one example cannot be used; the others may be fine.

  A fault in the data: the example is skipped and counted. What concerns all
  examples, such as a field that the source lacks, is a `UserError` instead.
  """

  def __init__(
    self, reason: str, *, source: str, split: str, index: int, key: str = ""
  ):
    self.reason = without_address(reason)
    self.source = source
    self.split = split
    self.index = index
    self.key = key  # What the source calls it, if it says.
    named = f" ({key})" if key else ""
    super().__init__(
      f"Example {index}{named} of {source!r}, split {split!r}, cannot be "
      f"used: {self.reason}"
    )

  def __reduce__(self):
    # Exceptions are sent to other processes with positional arguments alone.
    made = functools.partial(
      BadExample,
      source=self.source,
      split=self.split,
      index=self.index,
      key=self.key,
    )
    return made, (self.reason,)


class BadExamples:
  """The broken examples that came up in one split; safe for threads.

  Each counts once, however many epochs meet it: after an epoch the share is
  that of the whole split. `len` is their number.
  """

  def __init__(self, source: str, split: str, length: int, max_fraction: float):
    self.max_fraction = max_fraction
    self._named = (source, split)
    self._name = f"{source!r}, split {split!r}"
    self._length = length  # Examples of the split.
    self._seen = 0
    self._indices: set[int] = set()
    self._kinds: Counter[str] = Counter()
    self._first: list[BadExample] = []
    self._lock = threading.Lock()

  def __len__(self) -> int:
    return len(self._indices)

  @property
  def reasons(self) -> dict[str, int]:
    """How many are broken in which way, the most frequent first."""
    with self._lock:
      return dict(self._kinds.most_common())

  def __reduce__(self):
    # Another process counts for itself.
    return BadExamples, (*self._named, self._length, self.max_fraction)

  def see(self) -> None:
    """Counts an example that came up, broken or not."""
    with self._lock:
      self._seen += 1

  def count(self, seen: int, bad: Sequence[BadExample]) -> None:
    """Counts what came up in a worker process.

    Raises:
      UserError: as `add`.
    """
    with self._lock:
      self._seen += seen
    for example in bad:
      self.add(example)

  def add(self, bad: BadExample) -> None:
    """Counts a broken example and names it in the log.

    Raises:
      UserError: more are broken than `max_fraction` of those seen.
    """
    with self._lock:
      new = bad.index not in self._indices
      if new:
        self._indices.add(bad.index)
        self._kinds[kind(bad.reason)] += 1
        if len(self._first) < NUM_LISTED:
          self._first.append(bad)
      count = len(self._indices)
      seen = min(self._seen, self._length)
    if new and count <= MAX_NAMED:
      log.warning("Skipped. %s", bad)
    if new and count == MAX_NAMED:
      log.warning("Further ones of %s are only counted.", self._name)
    counted = max(seen, min(MIN_SEEN, self._length))
    allowed = math.floor(self.max_fraction * counted + 1e-9)
    if count > allowed:
      raise errors.UserError(
        f"{count:,} of the {seen:,} examples seen of {self._name}, cannot be "
        f"used; data.max_bad_fraction={self.max_fraction:g} allows "
        f"{allowed:,} of {counted:,}.\n{self.describe()}\nRepair or remove "
        "them (`mmjax data check` lists what cannot be read or decoded), or "
        "raise max_bad_fraction of these data."
      )

  def describe(self) -> str:
    """The most frequent reasons with counts, and the first examples."""
    with self._lock:
      return _describe(self._kinds, self._first)


class Report:
  """What came up in a worker process; the main process judges it."""

  def __init__(self):
    self._seen = 0
    self._bad: list[BadExample] = []

  def see(self) -> None:
    """Counts an example that came up."""
    self._seen += 1

  def add(self, bad: BadExample) -> None:
    """Keeps a broken example."""
    self._bad.append(bad)

  def describe(self) -> str:
    """As that of `BadExamples`, of those since the last `take`."""
    return describe(self._bad)

  def take(self) -> tuple[int, tuple[BadExample, ...]]:
    """How many came up, and the broken ones, since the last call."""
    taken = self._seen, tuple(self._bad)
    self._seen, self._bad = 0, []
    return taken


def describe(bad: Sequence[BadExample]) -> str:
  """The most frequent reasons with counts, and the first examples."""
  return _describe(Counter(kind(b.reason) for b in bad), bad)


def _describe(kinds: Counter[str], bad: Sequence[BadExample]) -> str:
  shown = kinds.most_common(NUM_LISTED)
  lines = [f"  {count:6,}  {name}" for name, count in shown]
  rest = kinds.total() - sum(count for _, count in shown)
  if rest:
    lines.append(f"  {rest:6,}  for other reasons")
  lines.append("The first of them:")
  for example in bad[:NUM_LISTED]:
    named = f" ({example.key})" if example.key else ""
    where = f"{example.split}[{example.index}]{named}"
    lines.append(f"  {where}: {example.reason}")
  return "\n".join(lines)


def kind(reason: str) -> str:
  """A reason without what is only of one example, to count by.

  E.g. "40x30 pixels, more than max_pixels=9" is "#x# pixels, more than
  max_pixels=#".
  """
  return NUMBER.sub("#", PATH.sub("'...'", without_address(reason)))


def without_address(reason: str) -> str:
  """A reason without the address of an object in memory."""
  return ADDRESS.sub("", reason)
