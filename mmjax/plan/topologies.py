"""Hardware by name: its chips, what they can do, and devices to compile for."""

import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Sequence

import jax

from mmjax.core import errors

GIB = 2.0**30


@dataclasses.dataclass(frozen=True)
class Chip:
  """What one chip can do; rates per second, one way."""

  name: str
  flops: float  # Products of bfloat16, dense.
  hbm_bytes: float
  hbm_rate: float  # Bytes.
  link_rate: float  # Bytes over one link to a neighbour.
  dcn_rate: float  # Bytes to other slices or hosts, a chip's share.
  torus: int = 0  # Dimensions of the torus; 0 = a switch joins all.
  wraps: int = 1  # An axis is a ring if its size is a multiple of this.
  source: str = ""


TPU_DOCS = "docs.cloud.google.com/tpu/docs"
# Per link: the documented rate of a chip, both ways, over 2 and its links (4
# of a 2D torus, 6 of a 3D one). DCN: that of a pod or host over its chips.
CHIPS = {
  "v4": Chip(
    "TPU v4", 275e12, 32 * GIB, 1228e9, 50e9, 6.25e9, 3, 4, f"{TPU_DOCS}/v4"
  ),  # Its DCN is not documented: that of v5p.
  "v5e": Chip(
    "TPU v5e", 197e12, 16 * GIB, 819e9, 50e9, 3.125e9, 2, 16, f"{TPU_DOCS}/v5e"
  ),
  "v5p": Chip(
    "TPU v5p", 459e12, 95 * GIB, 2765e9, 100e9, 6.25e9, 3, 4, f"{TPU_DOCS}/v5p"
  ),
  "v6e": Chip(
    "TPU v6e", 918e12, 32 * GIB, 1600e9, 100e9, 12.5e9, 2, 16, f"{TPU_DOCS}/v6e"
  ),
  # SXM modules; NVLink 4 both ways over 2, one 400 Gbit/s adapter a chip.
  "h100": Chip(
    "H100", 989e12, 80e9, 3350e9, 450e9, 50e9, source="nvidia.com, H100 SXM"
  ),
  "h200": Chip(
    "H200", 989e12, 141e9, 4800e9, 450e9, 50e9, source="nvidia.com, H200 SXM"
  ),
}
GPUS = ("h100", "h200")
GPUS_PER_HOST = 8
# Chips along each dimension of common slices, where nearest ones are looked up.
SHAPES = {
  2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
  3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8"),
}
# What makes libtpu silent on a machine without a TPU, and lets two processes
# load it.
QUIET = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """Devices of one kind, of one or several slices."""

  name: str
  chip: Chip | None  # None: CPUs, of which nothing is known.
  devices: Sequence[jax.Device]
  slices: int = 1
  # Bytes that a program may use; less than the chip has. 0 = not known.
  usable_bytes: float = 0.0

  @property
  def platform(self) -> str:
    """What the program will run on: "tpu", "gpu" or "cpu"."""
    if self.chip is None:
      return "cpu"
    return "tpu" if self.chip.torus else "gpu"

  @property
  def exact(self) -> bool:
    """Whether the program was compiled for this hardware."""
    return self.platform != "gpu"

  def slice_of(self, index: int) -> int:
    """The slice, or of GPUs the host, of the device at a place."""
    if self.platform == "gpu":
      return index // GPUS_PER_HOST
    return getattr(self.devices[index], "slice_index", 0) or 0


def is_fake(name: str) -> bool:
  """Whether this machine's CPU stands in for the hardware.

  Raises:
    UserError: not a name of a topology.
  """
  return _parse(name)[0] in ("cpu", *GPUS)


def count(name: str) -> int:
  """Number of devices that a name stands for, of a slice.

  Raises:
    UserError: not a name of a topology.
  """
  return math.prod(_parse(name)[1])


def topology(name: str, slices: int = 1) -> Topology:
  """Devices by name: "v5e:16x16", "v5p:4x4x8", "h100:8", "cpu:8".

  Those of TPUs come from libtpu, which need not find any. Of GPUs, and of
  CPUs, there are fake devices of this machine's CPU.

  Raises:
    UserError: no such chip or shape, libtpu is missing, or too few devices.
  """
  kind, shape = _parse(name)
  if slices < 1:
    raise errors.UserError(f"--slices={slices}, expected 1 or more.")
  if kind in ("cpu", *GPUS):
    if slices > 1:
      raise errors.UserError(f"--slices={slices}: {kind!r} has no slices.")
    chip = CHIPS.get(kind)
    usable = chip.hbm_bytes if chip else 0.0
    return Topology(name, chip, _cpus(shape[0]), 1, usable)
  devices = _tpus(name, shape, slices)
  # The compiler keeps 0.25 GiB of a v5e's 16 for itself, as said when a
  # program does not fit; of others as much is assumed.
  usable = CHIPS[kind].hbm_bytes - 0.25 * GIB
  return Topology(name, CHIPS[kind], devices, slices, usable)


def _parse(name):
  kind, _, text = name.partition(":")
  if kind not in CHIPS and kind != "cpu":
    raise errors.unknown("topology", kind, [*CHIPS, "cpu"])
  dimensions = CHIPS[kind].torus if kind in CHIPS else 0
  if not dimensions:
    text = text or "1"
    if not re.fullmatch(r"[1-9]\d*", text):
      raise errors.UserError(
        f"Topology {name!r}: expected a number of devices, e.g. '{kind}:8'."
      )
    return kind, (int(text),)
  shape = tuple(int(n) for n in re.findall(r"\d+", text))
  if (
    not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", text) or len(shape) != dimensions
  ):
    known = [f"{kind}:{s}" for s in SHAPES[dimensions]]
    raise errors.UserError(
      f"Topology {name!r}: a {kind} slice has {dimensions} dimensions."
      f"{errors.nearest(name, known)} Common ones: {known}."
    )
  return kind, shape


def _cpus(number):
  devices = jax.devices("cpu")
  if len(devices) < number:
    raise errors.UserError(
      f"{number} devices are wanted, there are {len(devices)}: set "
      f"JAX_NUM_CPU_DEVICES={number}."
    )
  return devices[:number]


def _tpus(name, shape, slices):
  from jax.experimental import topologies

  for key, value in QUIET.items():
    os.environ.setdefault(key, value)
  _check_libtpu(name)
  options = {"num_slices": slices} if slices > 1 else {}
  if math.prod(shape) == 1:
    options["chips_per_host_bounds"] = (1, 1, 1)
  try:
    found = topologies.get_topology_desc(name, "tpu", **options)
  except Exception as e:  # Of several kinds; all say what libtpu said.
    kind = name.partition(":")[0]
    known = [f"{kind}:{s}" for s in SHAPES[len(shape)]]
    raise errors.UserError(
      f"libtpu knows no topology {name!r} ({e})."
      f"{errors.nearest(name, known)} Common ones: {known}."
    ) from e
  return found.devices


def _check_libtpu(name):
  if importlib.util.find_spec("libtpu") is None:
    raise errors.UserError(
      f"Compiling for {name!r} needs the compiler of TPUs, though no TPU: "
      "pip install 'mmjax[tpu]' (or 'libtpu', 200 MB). Without it there are "
      f"{[f'{g}:1' for g in GPUS]}, by formula, and 'cpu:8'."
    )
