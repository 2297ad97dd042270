"""The watchdogs of several processes, here of several threads."""

import queue
import socket
import threading
import time

import pytest

from mmjax.distributed.watchdog import Address, Hub, Settings, Watchdog

TOKEN = "secret"
NAMES = [f"process {i} (host{i}, pid {100 + i})" for i in range(3)]


class Job:
  """Three watchdogs in one process; `lost` has what each would have said."""

  def __init__(self, places=(), **settings):
    settings = Settings(**{"beat_secs": 0.05, "farewell_secs": 0.1, **settings})
    self.lost = [queue.Queue() for _ in NAMES]
    hub = Hub(NAMES, settings, TOKEN)
    self.dogs = [
      Watchdog(
        i,
        NAMES,
        settings,
        hub=hub if i == 0 else None,
        on_lost=self.lost[i].put,
      )
      for i in range(len(NAMES))
    ]
    self.port = self.dogs[0].listen()
    self.address = Address(hosts=("localhost",), port=self.port, token=TOKEN)
    for dog, place in zip(self.dogs, places, strict=False):
      dog.at(*place)
    for dog in self.dogs:
      dog.connect(self.address)

  def cut(self, process):
    """Closes its connection, as the system does for a killed process."""
    self.dogs[process].detach()

  def silence(self, process):
    """Stops its thread, connection open, as a frozen host does."""
    dog = self.dogs[process]
    dog._loop.call_soon_threadsafe(time.sleep, 3.0)

  def end(self):
    for dog in self.dogs[::-1]:
      dog.detach()  # Once more does nothing.

  def said(self, process):
    return self.lost[process].get(timeout=20)


@pytest.fixture
def start():
  """`start(places, **settings)`: a job."""
  jobs = []

  def make(*args, **settings):
    jobs.append(Job(*args, **settings))
    return jobs[-1]

  yield make
  for job in jobs:
    job.end()


def test_lost_process_is_named_to_all_others_with_its_place(start):
  job = start()
  job.dogs[1].at(12, "input")
  time.sleep(0.2)  # A beat or more.

  job.cut(1)

  for process in (0, 2):
    text = job.said(process)
    assert text.startswith(f"{NAMES[1]} is gone: its connection was closed.")
    assert "waiting for its data before step 12" in text
    assert f"{NAMES[process]} stops too" in text


def test_lost_first_process_is_named_to_all_others(start):
  job = start()

  job.dogs[0].detach()

  for process in (1, 2):
    assert job.said(process).startswith(f"{NAMES[0]} is gone")


def test_silent_process_is_given_up(start):
  job = start(dead_secs=1.0)

  job.silence(2)

  assert job.said(1).startswith(f"{NAMES[2]} is gone: silent for 1 seconds")


def test_error_of_one_is_told_to_the_others(start):
  job = start()

  job.dogs[2].fail("picture 7 is broken")

  for process in (0, 1):
    assert f"{NAMES[2]} failed: picture 7 is broken" in job.said(process)
  assert job.lost[2].empty()


def test_error_that_follows_from_a_loss_blames_the_lost(start):
  job = start()
  blamed = threading.Thread(
    target=job.dogs[2].fail, args=("gloo failed", 20.0), daemon=True
  )

  blamed.start()
  blamed.join(0.3)
  job.cut(1)

  assert job.said(2).startswith(f"{NAMES[1]} is gone")
  assert job.said(0).startswith(f"{NAMES[1]} is gone")


def test_goodbyes_wait_for_each_other_and_lose_nobody(start):
  job = start()
  closing = [
    threading.Thread(target=dog.close, daemon=True) for dog in job.dogs
  ]
  for thread in closing[:2]:
    thread.start()
  closing[0].join(0.3)
  assert all(thread.is_alive() for thread in closing[:2])  # One still works.

  closing[2].start()
  for thread in closing:
    thread.join(20)

  assert not any(thread.is_alive() for thread in closing)
  assert all(lost.empty() for lost in job.lost)


def test_stranger_is_neither_heard_nor_missed(start):
  job = start()
  with socket.create_connection(("localhost", job.port)) as stranger:
    stranger.sendall(b'{"process": 1, "token": "guess"}\n{"failed": "x"}\n')
    assert stranger.recv(100) == b""  # Closed.

  time.sleep(0.2)

  assert all(lost.empty() for lost in job.lost)


def test_straggler_is_named_by_the_first_process(start, capfd):
  start([(5, "after"), (5, "input"), (5, "after")], straggler_secs=0.3)
  deadline, said = time.monotonic() + 20, ""
  while "STRAGGLER" not in said and time.monotonic() < deadline:
    time.sleep(0.05)
    said += capfd.readouterr().err

  assert f"STRAGGLER {NAMES[1]} keeps the others waiting" in said


def test_address_that_nobody_hears_is_an_error():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  dog = Watchdog(1, NAMES, Settings())

  with pytest.raises(ConnectionError, match=f"localhost:{port}"):
    dog.connect(Address(hosts=("localhost",), port=port, token=TOKEN))
  dog.detach()
