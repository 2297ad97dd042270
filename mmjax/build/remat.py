"""`stack.remat="auto"`: no more is computed again than the memory asks for."""

import math
from collections.abc import Callable

import jax
import ml_collections as mlc

from mmjax.build import experiment
from mmjax.core import memory

AUTO = "auto"
ORDER = ("none", "dots", "full")  # From fast to small.
SHARE = 0.9  # Of what is free; evaluation and the input need some of it.


def prepare(
  config: mlc.ConfigDict, agree: Callable[[float], float] = lambda free: free
) -> tuple[experiment.Experiment, str]:
  """Prepares an experiment; "auto" becomes the first policy that fits.

  Each try compiles the step; the last of them is the one that is trained, out
  of the compilation cache.

  Args:
    config: resolved.
    agree: of several processes, makes one number of the free bytes of each.

  Returns:
    The experiment, and what was found, to be read; "" where nothing is "auto".

  Raises:
    UserError: as `experiment.prepare`.
  """
  if AUTO not in experiment.remat_policies(config).values():
    return experiment.prepare(config), ""
  free, tried = None, []
  for policy in ORDER:
    made = experiment.prepare(experiment.with_remat(config, policy, only=AUTO))
    if free is None:
      free = agree(_free_bytes(made))
    needed = step_bytes(made)
    tried.append(f"{policy} needs {_gib(needed)}")
    if not free or needed <= SHARE * free:
      break
  there = f"of {_gib(free)}" if free else "of what is not known"
  return made, f"remat {policy}: {', '.join(tried)} {there}."


def step_bytes(made: experiment.Experiment) -> float:
  """What the compiled step needs of a device, or of all that a CPU pretends.

  Infinite if the compiler says that it does not fit.
  """
  try:
    stats = made.lower_step().compile().memory_analysis()
  except jax.errors.JaxRuntimeError as e:
    if "RESOURCE_EXHAUSTED" not in str(e):
      raise
    return math.inf
  results = stats.output_size_in_bytes - stats.alias_size_in_bytes
  each = stats.argument_size_in_bytes + stats.temp_size_in_bytes + results
  return float(each * _sharing(made))


def _free_bytes(made):
  return memory.free_bytes(made.mesh.local_devices[0])


def _sharing(made):
  """How many devices of this process share one memory."""
  devices = made.mesh.local_devices
  return len(devices) if devices[0].platform == "cpu" else 1


def _gib(size):
  return f"{size / 2**30:.1f} GiB"
