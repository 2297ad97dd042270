"""What launchers say in the environment: how many processes, which is this."""

import dataclasses
from collections.abc import Mapping

from mmjax.core import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
  """What a launcher said of the job."""

  name: str
  processes: int
  process: int | None  # None: jax finds it out.
  # Why jax cannot find the address of the first process; "" = it can.
  problem: str = ""


@dataclasses.dataclass(frozen=True)
class _Launcher:
  """Variables of a launcher."""

  name: str
  processes: str
  process: str
  needs: tuple[str, ...]  # Without these jax does not recognise it.
  problem: str


_NO_ADDRESS = "it does not say where process 0 listens"
LAUNCHERS = (
  _Launcher(
    "Slurm",
    "SLURM_NTASKS",
    "SLURM_PROCID",
    ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_LOCALID"),
    "this process was not started by srun",
  ),
  _Launcher(
    "Open MPI",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_RANK",
    ("OMPI_MCA_orte_hnp_uri",),  # Up to version 4.
    _NO_ADDRESS,
  ),
  _Launcher("MPI", "PMI_SIZE", "PMI_RANK", ("-",), _NO_ADDRESS),
  _Launcher("torchrun", "WORLD_SIZE", "RANK", ("-",), _NO_ADDRESS),
)


def find(environ: Mapping[str, str]) -> Cluster | None:
  """The launcher that started this process, if it started several.

  Raises:
    UserError: a variable that should be a number is none.
  """
  if cluster := _tpu(environ):
    return cluster
  for launcher in LAUNCHERS:
    processes = _number(environ, launcher.processes)
    if processes is None or processes < 2:
      continue
    known = all(name in environ for name in launcher.needs)
    return Cluster(
      name=launcher.name,
      processes=processes,
      process=_number(environ, launcher.process),
      problem="" if known else launcher.problem,
    )
  return None


def _tpu(environ):
  names = environ.get("TPU_PROCESS_ADDRESSES") or environ.get(
    "TPU_WORKER_HOSTNAMES", ""
  )
  hosts = [name for name in names.split(",") if name]
  slices = _number(environ, "MEGASCALE_NUM_SLICES") or 1
  if len(hosts) * slices < 2:
    return None
  return Cluster(name="TPU", processes=len(hosts) * slices, process=None)


def _number(environ, name):
  text = environ.get(name, "")
  if not text:
    return None
  # Slurm writes "4(x2)" in its like; its number of tasks is plain.
  if not text.isdecimal():
    raise errors.UserError(
      f"The environment has {name}={text!r}, expected a number. Unset it, or "
      "give --coordinator, --processes and --process."
    )
  return int(text)
