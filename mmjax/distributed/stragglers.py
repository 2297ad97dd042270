"""Which process keeps the others waiting.

All processes finish a step together, so their speeds are the same: what
differs is who waits for whom. A process is late if the others are further on
for a while, or if it spends most of its time waiting for its data while the
others don't.
"""

import collections
import dataclasses
import statistics
import threading
import time
from collections.abc import Iterator, Mapping

INPUT, STEP, AFTER = "input", "step", "after"
# What a process does around a step, in order.
STAGES = {
  "start": "starting",
  INPUT: "waiting for its data before",
  STEP: "in",
  AFTER: "logging, evaluating or saving after",
}
ORDER = tuple(STAGES)
MOST_INPUT = 0.5  # Of its time, before a process can be called late.
AGAIN_SECS = 60.0  # Between two messages about one process and reason.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beat:
  """Where a process is."""

  step: int
  stage: str
  stage_secs: float  # How long already.
  input_secs: float  # Waited for data since the start of the run.

  @property
  def place(self) -> str:
    """E.g. `in step 12 for 3 s`."""
    if self.stage == "start":
      return f"starting for {self.stage_secs:.0f} s"
    return f"{STAGES[self.stage]} step {self.step} for {self.stage_secs:.0f} s"

  @property
  def progress(self) -> tuple[int, int]:
    """Orders the places of a run."""
    return self.step, ORDER.index(self.stage)


class Pace:
  """Notes the stages of a process; safe for threads."""

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._place = (0, "start")
    self._since = time.monotonic()
    self._input_secs = 0.0

  def enter(self, step: int, stage: str) -> None:
    """A stage begins, the one before it ends."""
    now = time.monotonic()
    with self._lock:
      if self._place[1] == INPUT:
        self._input_secs += now - self._since
      self._place, self._since = (step, stage), now

  def beat(self) -> Beat:
    """The place now."""
    with self._lock:
      secs = time.monotonic() - self._since
      step, stage = self._place
      waiting = secs if stage == INPUT else 0.0
      return Beat(
        step=step,
        stage=stage,
        stage_secs=secs,
        input_secs=self._input_secs + waiting,
      )


class Stragglers:
  """Judges the beats of all processes."""

  def __init__(self, secs: float):
    self._secs = secs
    self._named: dict[tuple[int, str], float] = {}
    # Input seconds of a process, at times within the last `secs`.
    self._history: dict[int, collections.deque] = {}

  def find(
    self, beats: Mapping[int, Beat], now: float
  ) -> Iterator[tuple[int, str]]:
    """Yields who is late and why; each reason at most once a minute."""
    if len(beats) < 2:
      return
    furthest = max(beat.progress for beat in beats.values())
    shares = {p: self._share(p, beat, now) for p, beat in beats.items()}
    for process, beat in sorted(beats.items()):
      text, reason = "", "data"
      if beat.stage_secs > self._secs and beat.progress < furthest:
        reason = beat.stage
        text = f"keeps the others waiting: it is {beat.place}"
      elif self._starves(process, shares):
        text = (
          f"keeps the others waiting: {shares[process]:.0%} of the last "
          f"{self._secs:.0f} s it waited for its data (at step {beat.step})"
        )
      last = self._named.get((process, reason), -float("inf"))
      if text and now - last > AGAIN_SECS:
        self._named[process, reason] = now
        yield process, text

  def _share(self, process, beat, now):
    """Share of the last seconds that went to input; None: too early."""
    if beat.stage == "start":
      return None
    times = self._history.setdefault(process, collections.deque())
    times.append((now, beat.input_secs))
    # The oldest one kept is just outside of the window.
    while len(times) > 1 and now - times[1][0] >= self._secs:
      times.popleft()
    start, secs = times[0]
    if now - start < self._secs:
      return None
    return min((beat.input_secs - secs) / (now - start), 1.0)

  def _starves(self, process, shares):
    own = shares[process]
    others = [s for p, s in shares.items() if p != process and s is not None]
    if own is None or not others or own < MOST_INPUT:
      return False
    return own > 2 * statistics.median(others)
