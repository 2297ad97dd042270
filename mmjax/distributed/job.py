"""The processes of one job, as a run sees them."""

import json
import os
import secrets
import socket
import sys
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.core import errors
from mmjax.distributed import agreement, stragglers, watchdog
from mmjax.distributed.preemption import StopTogether
from mmjax.distributed.start import Place

# How long an error waits for the name of a process that caused it: gloo and
# NCCL fail at once when the other side of a connection is gone.
BLAME_SECS = 3.0


class Job:
  """Several processes that train one model; use as a context manager.

  An error within ends the other processes too, and says to them why.

  Raises:
    UserError: this process does not reach process 0.
  """

  def __init__(
    self, place: Place, settings: watchdog.Settings, *, port: int = 0
  ):
    self.place = place
    own = {
      "host": socket.gethostname(),
      "pid": os.getpid(),
      "devices": [d.id for d in jax.local_devices()],
      "kind": jax.local_devices()[0].device_kind,
    }
    hub = None
    token = secrets.token_hex(16)
    rows = [json.loads(r) for r in agreement.gather(json.dumps(own))]
    self._rows = rows
    self.names = [_name(i, row) for i, row in enumerate(rows)]
    if place.process == 0:
      hub = watchdog.Hub(self.names, settings, token)
    self._watchdog = watchdog.Watchdog(
      place.process, self.names, settings, hub=hub
    )
    where = {}
    if hub is not None:
      where = {
        "hosts": _own_addresses(place, rows),
        "port": self._watchdog.listen(port),
        "token": token,
      }
    where = json.loads(agreement.gather(json.dumps(where))[0])
    address = watchdog.Address(
      hosts=tuple(where["hosts"]), port=where["port"], token=where["token"]
    )
    try:
      self._watchdog.connect(address)
    except OSError as e:
      raise errors.UserError(
        f"{self.names[place.process]} does not reach the watchdog of process "
        f"0 ({e}). Open a port between the hosts and name it with "
        "--watchdog_port."
      ) from e

  @property
  def first(self) -> bool:
    """Whether this process writes what only one should write."""
    return self.place.process == 0

  @property
  def index(self) -> int:
    """Number of this process."""
    return self.place.process

  def gather(self, text: str) -> list[str]:
    """The texts of all processes, in their order; all have to call it."""
    return agreement.gather(text)

  def device_map(self) -> str:
    """Which process has which devices, a line each."""
    count = sum(len(row["devices"]) for row in self._rows)
    lines = [f"{len(self._rows)} processes, {count} devices"]
    for name, row in zip(self.names, self._rows, strict=True):
      lines.append(f"  {name}: {row['kind']} {_ranges(row['devices'])}")
    return "\n".join(lines)

  def check(self, facts: Mapping[str, Any]) -> None:
    """Checks that all processes give the same facts; all have to call it."""
    agreement.check(facts, self.names)

  def waits_for_input(self, step: int) -> None:
    """The data of this step are asked for."""
    self._watchdog.at(step, stragglers.INPUT)

  def steps(self, step: int) -> None:
    """This step is handed to the devices."""
    self._watchdog.at(step, stragglers.STEP)

  def stepped(self, step: int) -> None:
    """It was; what comes after it begins."""
    self._watchdog.at(step, stragglers.AFTER)

  def stop_signal(self) -> StopTogether:
    """Says when all processes should stop."""
    return StopTogether()

  def __enter__(self) -> "Job":
    return self

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    if error is None or isinstance(error, agreement.Disagreement):
      self._watchdog.close()  # All come here.
      return
    mine = isinstance(error, errors.UserError)
    text = (str(error).strip() or kind.__name__).splitlines()[0]
    self._watchdog.fail(text[:500], wait_secs=0.0 if mine else BLAME_SECS)


def exit_at_once(status: int) -> None:
  """Ends a process of several that failed.

  The usual way out waits in jax until all processes have come there, which
  those that were told to stop never do.
  """
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _name(index, row):
  return f"process {index} ({row['host']}, pid {row['pid']})"


def _ranges(ids):
  """E.g. `0-3,8`."""
  parts: list[list[int]] = []
  for i in sorted(ids):
    if parts and parts[-1][1] == i - 1:
      parts[-1][1] = i
    else:
      parts.append([i, i])
  return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def _own_addresses(place, rows):
  """Under which this host may be reached, the likeliest first."""
  if len({row["host"] for row in rows}) == 1:
    return ["localhost"]
  found = []
  if place.coordinator:
    found.append(place.coordinator.rpartition(":")[0].strip("[]"))
  with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
    try:
      probe.connect(("10.255.255.255", 1))  # Sends nothing.
      found.append(probe.getsockname()[0])
    except OSError:
      pass
  found += [socket.getfqdn(), socket.gethostname()]
  return list(dict.fromkeys(found))
