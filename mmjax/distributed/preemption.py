"""Stops all processes of a job after the same step, when one is asked to.

A scheduler sends SIGTERM to one process or to all, at moments of its own. If
each stopped after the step that it is in, some would wait for ever for the
others. jax's preemption service tells all processes, and finds a step that
none of them has passed.
"""

import os
import signal
import threading
from types import FrameType
from typing import Any

from jax.experimental import multihost_utils


class StopTogether:
  """While it is open, SIGINT asks all processes to stop, as SIGTERM does.

  SIGTERM itself is left to jax, which waits for it since the processes were
  joined. A second SIGINT ends this process, and the watchdog the others.
  """

  def __init__(self) -> None:
    self._interrupted = False
    self._previous: Any = None
    self._caught = False

  def reached(self, step: int) -> bool:
    """Whether to stop after this step. Each process asks after each step."""
    return bool(multihost_utils.reached_preemption_sync_point(step))

  def __enter__(self) -> "StopTogether":
    if threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGINT, self._handle)
      self._caught = True
    return self

  def __exit__(self, *exc_info: object) -> None:
    if self._caught:
      handler = self._previous
      signal.signal(
        signal.SIGINT, signal.SIG_DFL if handler is None else handler
      )

  def _handle(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self._interrupted:
      os._exit(128 + number)
    self._interrupted = True
    os.kill(os.getpid(), signal.SIGTERM)
