"""Reads what `jax.profiler` recorded: seconds by operation.

The compiler's names of operations (`hlo_op`) join a trace with the program's
text. TensorFlow, which other readers need, is not used.
"""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax

from mmjax.core import errors

# Lines of a device that sum up what other lines have one by one.
SUMS = ("Steps", "XLA Modules", "Framework Name Scope", "Framework Ops")


@dataclasses.dataclass(frozen=True)
class Event:
  """An operation that ran, on one thread or stream."""

  operation: str  # As the compiler names it.
  module: str  # The program that it belongs to.
  start: float  # Nanoseconds.
  end: float


def newest(folder: Path) -> Path:
  """The file of the last trace that was written under a folder.

  Raises:
    UserError: there is none.
  """
  files = sorted(folder.glob("plugins/profile/*/*.xplane.pb"))
  if not files:
    raise errors.UserError(f"No trace under {str(folder)!r}.")
  return max(files, key=lambda file: file.stat().st_mtime_ns)


def lines(path: Path) -> Iterator[list[Event]]:
  """The operations of each thread or stream, in a trace file."""
  for plane in jax.profiler.ProfileData.from_file(str(path)).planes:
    for line in plane.lines:
      if line.name in SUMS:
        continue
      events = list(_events(line))
      if events:
        yield events


def _events(line):
  for event in line.events:
    stats = dict(event.stats)
    if "hlo_op" in stats:
      yield Event(
        str(stats["hlo_op"]),
        str(stats.get("hlo_module", "")),
        event.start_ns,
        event.start_ns + event.duration_ns,
      )


def own_secs(events: Iterable[Event]) -> dict[str, float]:
  """Seconds of each operation of a thread, without those that it calls.

  A loop's event spans those of its body, which would count twice.
  """
  own: dict[str, float] = collections.defaultdict(float)
  open_events: list[Event] = []
  for event in sorted(events, key=lambda e: (e.start, -e.end)):
    while open_events and open_events[-1].end <= event.start:
      open_events.pop()
    own[event.operation] += event.end - event.start
    if open_events:
      end = min(event.end, open_events[-1].end)
      own[open_events[-1].operation] -= end - event.start
    open_events.append(event)
  return {name: nanoseconds / 1e9 for name, nanoseconds in own.items()}
