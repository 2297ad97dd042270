"""Stops a run when it is asked to, between two steps."""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# `timeout` and some schedulers send a signal to a process and at once again
# to its group: that is one request, not two.
SAME_SECS = 0.1


class StopSignal:
  """While it is open, the first SIGTERM or SIGINT only sets `requested`.

  The loop looks at it after each step, saves and leaves. A second signal ends
  the process at once with status 128 + its number. Python lets only the main
  thread handle signals; in another one, nothing is caught.
  """

  def __init__(self) -> None:
    self._number: int | None = None
    self._time = 0.0
    self._previous: dict[int, Any] = {}

  @property
  def requested(self) -> bool:
    """Whether a signal came."""
    return self._number is not None

  @property
  def name(self) -> str:
    """Name of the signal, e.g. SIGTERM; "" if none came."""
    return "" if self._number is None else signal.Signals(self._number).name

  def __enter__(self) -> "StopSignal":
    if threading.current_thread() is threading.main_thread():
      for number in SIGNALS:
        self._previous[number] = signal.signal(number, self._handle)
    return self

  def __exit__(self, *exc_info: object) -> None:
    while self._previous:
      number, handler = self._previous.popitem()
      # None: a handler that was not set from Python cannot be set again.
      signal.signal(number, signal.SIG_DFL if handler is None else handler)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    now = time.monotonic()
    if self._number is None:
      self._number, self._time = number, now
      _say(
        f"{self.name}: finishing this step, then saving. Once more stops "
        "at once."
      )
    elif number != self._number or now - self._time > SAME_SECS:
      os._exit(128 + number)


def _say(text: str) -> None:
  # Not print: the signal may have come in the middle of one.
  with contextlib.suppress(OSError):
    os.write(2, f"\n{text}\n".encode())
