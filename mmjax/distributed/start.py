"""Joins the processes of a job, in one function."""

import dataclasses
import os
import threading
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.core import errors
from mmjax.distributed import environment, watchdog

# Of jax's own watch, behind ours: see `watchdog`.
HEARTBEAT_SECS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Which of how many processes this is.

  All left out: what the environment says, or alone.
  """

  coordinator: str = ""  # HOST:PORT where process 0 will listen.
  processes: int = 0
  process: int = -1

  @property
  def alone(self) -> bool:
    """Whether this is the only process."""
    return self.processes == 1


def find_place(given: Place, environ: Mapping[str, str]) -> Place:
  """Completes what was given from what the launcher says.

  A process that a launcher started with others, and that would train alone
  beside them, is refused; `processes=1` says that this is meant.

  Returns:
    A place; one without coordinator is left to jax's own detection.

  Raises:
    UserError: something is missing, out of range or contradicts the launcher.
  """
  if given.processes == 1:
    if given.process > 0:
      raise errors.UserError("--processes=1 has no --process but 0.")
    return Place(processes=1, process=0)
  cluster = environment.find(environ)
  if cluster is None:
    return _check(given) if given != Place() else Place(processes=1, process=0)
  if given.processes not in (0, cluster.processes):
    raise errors.UserError(
      f"--processes={given.processes}, but {cluster.name} started "
      f"{cluster.processes}."
    )
  if given.coordinator:
    known = given.process if given.process >= 0 else cluster.process
    return _check(
      Place(
        coordinator=given.coordinator,
        processes=cluster.processes,
        process=-1 if known is None else known,
      )
    )
  if cluster.problem:
    raise errors.UserError(
      f"{cluster.name} has {cluster.processes} processes in this job, but "
      f"{cluster.problem}: each would train alone. Start them with srun, or "
      "give each --coordinator=HOST:PORT (of process 0); or --processes=1 if "
      "this one is meant to train alone."
    )
  return Place(processes=cluster.processes)


def _check(place: Place) -> Place:
  if not place.coordinator and place.process < 0:
    return place  # Only how many are expected: jax finds out the rest.
  missing = [
    flag
    for flag, is_missing in (
      ("--coordinator=HOST:PORT", not place.coordinator),
      ("--processes=N", place.processes == 0),
      ("--process=I", place.process < 0),
    )
    if is_missing
  ]
  if missing:
    raise errors.UserError(
      f"Several processes need {' and '.join(missing)} too: no launcher that "
      "jax knows (Slurm, Open MPI, TPU) started this one."
    )
  if place.processes < 1 or place.process >= place.processes:
    raise errors.UserError(
      f"--process={place.process} of --processes={place.processes}: expected "
      f"0 to {max(place.processes, 1) - 1}."
    )
  host, _, port = place.coordinator.rpartition(":")
  if not host or not port.isdecimal() or not 0 < int(port) < 65536:
    raise errors.UserError(
      f"--coordinator={place.coordinator!r}, expected HOST:PORT, as in "
      "10.0.0.1:1234."
    )
  return place


def start(given: Place, *, timeout_secs: int = 300) -> Place:
  """Joins the other processes of the job; returns when all are there.

  Before anything touches a device.

  Args:
    given: see `find_place`.
    timeout_secs: how long to wait for the others.

  Raises:
    UserError: see `find_place`; or another number of processes came.
  """
  place = find_place(given, os.environ)
  if not place.alone:
    named: dict[str, Any] = {}
    if place.coordinator:
      named = dict(
        coordinator_address=place.coordinator,
        num_processes=place.processes,
        process_id=place.process,
      )
      if environment.find(os.environ) is None:
        named["cluster_detection_method"] = "deactivate"
    patience = threading.Timer(timeout_secs, _give_up, (place, timeout_secs))
    patience.start()
    try:
      jax.distributed.initialize(
        **named,
        # Later than ours: jax ends the process with a stack trace then.
        initialization_timeout=timeout_secs + 30,
        heartbeat_timeout_seconds=HEARTBEAT_SECS,
      )
    except (ValueError, RuntimeError) as e:
      raise errors.UserError(
        f"The {place.processes} processes did not come together: {e}\nGive "
        "each --coordinator=HOST:PORT, --processes=N and --process=I, or "
        "--processes=1 if this one is meant to train alone."
      ) from e
    finally:
      patience.cancel()
  if jax.process_count() != place.processes:
    raise errors.UserError(
      f"Expected {place.processes} processes, jax sees {jax.process_count()}. "
      "Give each --coordinator=HOST:PORT, --processes=N and --process=I."
    )
  return dataclasses.replace(place, process=jax.process_index())


def _give_up(place, secs):
  whose = f"process {place.process} of" if place.process >= 0 else "one of"
  where = f" at {place.coordinator}" if place.coordinator else ""
  watchdog.say(
    f"{whose} {place.processes} waited {secs} s for the others{where}. Start "
    "all of them, on hosts that reach that of process 0; --wait_secs waits "
    "longer."
  )
  os._exit(2)
