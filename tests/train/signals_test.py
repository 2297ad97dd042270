import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from mmjax.train import signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_only_noted(number, capfd):
  with signals.StopSignal() as stop:
    assert (stop.requested, stop.name) == (False, "")
    os.kill(os.getpid(), number)
    time.sleep(0.01)  # Python calls handlers between two of its steps.

    assert stop.requested
    assert stop.name == signal.Signals(number).name
  assert f"{stop.name}: finishing this step" in capfd.readouterr().err


def test_handlers_are_put_back():
  before = [signal.getsignal(n) for n in signals.SIGNALS]

  with signals.StopSignal():
    assert signal.getsignal(signal.SIGTERM) not in before

  assert [signal.getsignal(n) for n in signals.SIGNALS] == before


def test_handlers_are_put_back_after_an_error():
  before = signal.getsignal(signal.SIGTERM)

  with pytest.raises(ZeroDivisionError), signals.StopSignal():
    raise ZeroDivisionError

  assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_catch_nothing():
  before, inside = signal.getsignal(signal.SIGTERM), []

  def work():
    with signals.StopSignal() as stop:
      inside.extend([signal.getsignal(signal.SIGTERM), stop.requested])

  thread = threading.Thread(target=work)
  thread.start()
  thread.join()

  assert inside == [before, False]


def test_copy_of_a_signal_within_a_moment_is_the_same_request(monkeypatch):
  exits = []
  monkeypatch.setattr(os, "_exit", exits.append)
  monkeypatch.setattr(signals, "SAME_SECS", 60.0)  # A machine may pause.
  with signals.StopSignal() as stop:
    for _ in range(2):
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(0.001)

    assert stop.requested
    assert exits == []


def test_second_signal_ends_the_process_at_once():
  code = """
  import time
  from mmjax.train import signals
  with signals.StopSignal() as stop:
    print("ready", flush=True)
    while not stop.requested:
      time.sleep(0.01)
    print("noted", flush=True)
    try:
      time.sleep(60)
    finally:
      print("cleaned up", flush=True)
  """
  process = subprocess.Popen(
    [sys.executable, "-c", textwrap.dedent(code)],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  with process:
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "noted\n"
    time.sleep(2 * signals.SAME_SECS)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=10)

  assert process.returncode == 128 + signal.SIGTERM
  assert out == ""
