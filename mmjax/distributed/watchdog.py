"""Says which process of a job is gone or late, and ends the others.

Each process holds a TCP connection to process 0 and says every second where
it is. The system closes the connection of a process that was killed; a host
that fell silent is missed after `dead_secs`. Then every process writes who is
gone and exits with status 1: a step that waits for a dead process in a
collective would wait for ever, or fail without a name.
"""

import asyncio
import contextlib
import dataclasses
import hmac
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from mmjax.distributed import stragglers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """How patient the watchdog is."""

  beat_secs: float = 1.0
  dead_secs: float = 30.0  # Without a word from a process.
  straggler_secs: float = 20.0  # How long others wait before one is named.
  # For the others to hear who is lost, before the hub goes too.
  farewell_secs: float = 3.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Address:
  """Where the hub listens, and what proves that a caller belongs here."""

  hosts: tuple[str, ...]  # To be tried in this order.
  port: int
  token: str


def say(text: str) -> None:
  """Writes a line at once, whatever the main thread is doing."""
  with contextlib.suppress(OSError):
    os.write(2, f"mmjax: {text}\n".encode())


def leave(text: str) -> None:
  """Ends this process: nothing that waits for a dead one ends by itself."""
  say(text)
  with contextlib.suppress(Exception):
    sys.stdout.flush()
  os._exit(1)


class Hub:
  """Of process 0: hears all processes, itself included, and tells all.

  Runs in the event loop of its process's `Watchdog`.
  """

  def __init__(self, names: Sequence[str], settings: Settings, token: str):
    self._names = names
    self._settings = settings
    self._token = token
    self._writers: dict[int, asyncio.StreamWriter] = {}
    self._heard = dict.fromkeys(range(len(names)), time.monotonic())
    self._done: set[int] = set()
    self._stopped = False
    self.told = threading.Event()  # All know who is lost.
    self._late = stragglers.Stragglers(settings.straggler_secs)
    self._beats: dict[int, stragglers.Beat] = {}

  def hang_up(self) -> None:
    """Closes all connections, without a word."""
    self._stopped = True
    for writer in self._writers.values():
      writer.transport.abort()

  async def serve(self, reader, writer) -> None:
    """Hears one process until it is gone."""
    process = await self._greet(reader)
    if process is None:
      writer.transport.abort()
      return
    self._writers[process] = writer
    await self.tell({"alive": True}, only=(process,))  # Welcome.
    with contextlib.suppress(OSError, asyncio.IncompleteReadError, ValueError):
      while line := await reader.readline():
        self._heard[process] = time.monotonic()
        message = json.loads(line)
        if "beat" in message:
          self._beats[process] = stragglers.Beat(**message["beat"])
        elif "failed" in message:
          self._done.add(process)
          await self.stop(process, f"failed: {message['failed']}")
        elif "bye" in message:
          self._done.add(process)
    self._writers.pop(process, None)
    writer.transport.abort()
    if process not in self._done:
      await self.stop(process, "is gone: its connection was closed")

  async def _greet(self, reader):
    with contextlib.suppress(Exception):
      async with asyncio.timeout(10.0):
        hello = json.loads(await reader.readline())
      process = int(hello["process"])
      known = hmac.compare_digest(hello["token"], self._token)
      if known and process in range(len(self._names)):
        self._heard[process] = time.monotonic()
        return process
    return None

  async def stop(self, process: int, what: str) -> None:
    """Tells all others that a process is lost."""
    if self._stopped:
      return
    self._stopped = True
    beat = self._beats.get(process)
    where = f" It was {beat.place}." if beat else ""
    text = f"{self._names[process]} {what}.{where}"
    # Process 0 last: the others must hear it before their hub goes.
    await self.tell({"stop": text}, but=(0, process))
    deadline = time.monotonic() + self._settings.farewell_secs
    while set(self._writers) - {0, process} and time.monotonic() < deadline:
      await asyncio.sleep(0.02)
    self.told.set()
    if process != 0:
      await self.tell({"stop": text}, only=(0,))

  async def tell(self, message: Any, *, but=(), only=None) -> None:
    """Sends a message to all connections, or to some."""
    line = json.dumps(message).encode() + b"\n"
    for process, writer in list(self._writers.items()):
      if process in but or (only is not None and process not in only):
        continue
      with contextlib.suppress(OSError):
        writer.write(line)

  async def tick(self) -> bool:
    """Looks for who is silent or late; whether all have said goodbye."""
    now = time.monotonic()
    for process, heard in list(self._heard.items()):
      if process in self._done:
        continue
      if now - heard > self._settings.dead_secs:
        await self.stop(
          process, f"is gone: silent for {now - heard:.0f} seconds"
        )
    beats = {p: b for p, b in self._beats.items() if p not in self._done}
    for process, text in self._late.find(beats, now):
      say(f"STRAGGLER {self._names[process]} {text}")
    if len(self._done) == len(self._names):
      await self.tell({"done": True})
      return True
    await self.tell({"alive": True})
    return False


class Watchdog:
  """The part of one process; process 0 has the hub besides.

  A thread of its own, so that it is heard while the main thread computes.
  """

  def __init__(
    self,
    process: int,
    names: Sequence[str],
    settings: Settings,
    *,
    hub: Hub | None = None,
    on_lost: Callable[[str], None] = leave,
  ):
    self._process = process
    self._names = names
    self._settings = settings
    self._hub = hub
    self._on_lost = on_lost
    self._loop = asyncio.new_event_loop()
    self._writer: asyncio.StreamWriter | None = None
    self._server: asyncio.Server | None = None
    self._tasks: list[asyncio.Task] = []
    self._pace = stragglers.Pace()
    self._over = threading.Event()  # All are done, or one is lost.
    self._goodbye = threading.Event()
    self._thread = threading.Thread(
      target=self._run, name="mmjax-watchdog", daemon=True
    )

  def listen(self, port: int = 0) -> int:
    """Opens the hub's port (0 = any free one); starts the thread."""
    # One socket for both kinds of addresses: two would have two ports.
    both = socket.has_dualstack_ipv6()
    listening = socket.create_server(
      ("", port),
      family=socket.AF_INET6 if both else socket.AF_INET,
      dualstack_ipv6=both,
    )
    self._server = self._loop.run_until_complete(
      asyncio.start_server(self._hub.serve, sock=listening)
    )
    self._thread.start()
    return int(listening.getsockname()[1])

  def connect(self, address: Address) -> None:
    """Reports to the hub from now on.

    Raises:
      OSError: no host of the address answers.
    """
    if not self._thread.is_alive():
      self._thread.start()
    asyncio.run_coroutine_threadsafe(self._connect(address), self._loop).result(
      60.0
    )

  def at(self, step: int, stage: str) -> None:
    """Notes where the main thread is."""
    self._pace.enter(step, stage)

  def fail(self, text: str, wait_secs: float = 0.0) -> None:
    """Says that this process ends with an error.

    Waits first whether another process is lost: then this error is only what
    follows from it, and the process ends here with the other's name.
    """
    if self._over.wait(wait_secs):
      time.sleep(self._settings.farewell_secs)  # `leave` ends the process.
      return
    sent = self._send({"failed": text})
    with contextlib.suppress(Exception):
      sent.result(5.0)
    if self._hub is not None:
      self._hub.told.wait(5.0)

  def close(self) -> None:
    """Says goodbye, and waits until all have: the hub has to outlive them."""
    self._goodbye.set()
    self._send({"bye": True})
    self._over.wait()

  def detach(self) -> None:
    """Ends the thread. Without a goodbye, the others see a lost process."""
    if self._thread.is_alive():
      asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10.0)
      self._loop.call_soon_threadsafe(self._loop.stop)
      self._thread.join()
    self._loop.close()

  async def _hang_up(self):
    for task in self._tasks:
      task.cancel()
    await asyncio.gather(*self._tasks, return_exceptions=True)
    if self._hub is not None:
      self._server.close()
      self._hub.hang_up()
    if self._writer is not None:
      self._writer.transport.abort()
    await asyncio.sleep(0.05)  # The transports close their sockets.

  def _send(self, message):
    async def send():
      with contextlib.suppress(OSError):  # `_hear` says what it means.
        self._writer.write(json.dumps(message).encode() + b"\n")
        await self._writer.drain()

    return asyncio.run_coroutine_threadsafe(send(), self._loop)

  def _run(self):
    asyncio.set_event_loop(self._loop)
    self._loop.run_forever()

  async def _connect(self, address):
    problems = []
    for host in address.hosts:
      try:
        async with asyncio.timeout(10.0):
          reader, self._writer = await asyncio.open_connection(
            host, address.port
          )
        break
      except OSError as e:  # TimeoutError is one.
        problems.append(f"{host}:{address.port}: {e or type(e).__name__}")
    else:
      raise ConnectionError("; ".join(problems))
    self._send({"process": self._process, "token": address.token})
    async with asyncio.timeout(10.0):
      if not await reader.readline():
        raise ConnectionError(f"{host}:{address.port} hung up")
    self._tasks += [
      asyncio.ensure_future(self._hear(reader)),
      asyncio.ensure_future(self._beat()),
    ]

  async def _hear(self, reader):
    problem = "its connection was closed"
    while True:
      try:
        # Not `wait_for`: before Python 3.12 it may swallow a cancellation.
        async with asyncio.timeout(self._settings.dead_secs):
          line = await reader.readline()
        message = json.loads(line) if line else None
      except TimeoutError:
        problem = f"silent for {self._settings.dead_secs:.0f} seconds"
        message = None
      except (OSError, ValueError):
        message = None
      if message is None:
        self._lost(f"{self._names[0]} is gone: {problem}.")
        return
      if "stop" in message:
        self._lost(message["stop"])
        return
      if "done" in message:
        self._over.set()
        return

  def _lost(self, text):
    if self._over.is_set():
      return
    self._over.set()
    self._on_lost(
      f"{text} {self._names[self._process]} stops too; the same command goes "
      "on from the last checkpoint."
    )

  async def _beat(self):
    while not self._over.is_set():
      self._send({"beat": dataclasses.asdict(self._pace.beat())})
      if self._hub is not None:
        await self._hub.tick()
      # Goodbyes of short jobs should not wait for a whole beat.
      short = self._goodbye.is_set()
      await asyncio.sleep(0.05 if short else self._settings.beat_secs)
