"""Flags of the verbs that several processes can run together."""

import contextlib
from typing import Any

from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag("coordinator", "", "HOST:PORT where process 0 of several listens"),
  Flag("processes", 0, "how many processes; 1 = alone, whatever started it"),
  Flag("process", -1, "number of this one, from 0"),
  Flag("wait_secs", 300, "how long to wait for the others at the start"),
  Flag("dead_secs", 30.0, "a process silent for so long is given up"),
  Flag("straggler_secs", 20.0, "who keeps others waiting so long is named"),
  Flag("watchdog_port", 0, "port of process 0 for its watch; 0 = any free"),
)


def start(flags: Any) -> Any:
  """Joins the other processes, if there are any; before jax has devices.

  Raises:
    UserError: they don't come together, or a flag makes no sense.
  """
  for name in ("wait_secs", "dead_secs", "straggler_secs"):
    if not flags[name].value > 0:
      raise errors.UserError(
        f"--{name}={flags[name].value}, expected more than 0."
      )
  if not 0 <= flags.watchdog_port < 65536:
    raise errors.UserError(
      f"--watchdog_port={flags.watchdog_port}, expected 0 to 65535."
    )
  from mmjax.distributed import start as start_lib

  return start_lib.start(
    start_lib.Place(
      coordinator=flags.coordinator,
      processes=flags.processes,
      process=flags.process,
    ),
    timeout_secs=flags.wait_secs,
  )


def job(place: Any, flags: Any) -> Any:
  """A context with the job of several processes, or with None."""
  if place.alone:
    return contextlib.nullcontext()
  from mmjax.distributed import job as job_lib
  from mmjax.distributed import watchdog

  return job_lib.Job(
    place,
    watchdog.Settings(
      dead_secs=flags.dead_secs, straggler_secs=flags.straggler_secs
    ),
    port=flags.watchdog_port,
  )
