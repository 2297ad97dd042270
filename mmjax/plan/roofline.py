"""How long a step takes at least, and what bounds it.

A part of a step is a loop's body, or what is in no loop. Within a part, the
operations of a chip run one after the other, each as long as its products or
its bytes take, whichever is longer; the collectives run beside them. A step is
the sum over its parts of the longest of the three: products and bytes, ICI,
DCN. What it leaves out: products below the peak rate (small or odd shapes),
latencies, collectives that nothing hides, the host.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.plan import hlo, work
from mmjax.plan.collectives import Collective
from mmjax.plan.topologies import Chip

LIMITS = ("compute", "hbm", "ici", "dcn")


@dataclasses.dataclass(frozen=True)
class Part:
  """Seconds that one part of a step takes, all its trips together."""

  name: str
  flops: float
  bytes: float
  compute: float  # All products at the peak rate.
  hbm: float  # All bytes at the memory's rate.
  operations: float  # One after the other, each the longer of the two.
  ici: float
  dcn: float

  @property
  def secs(self) -> float:
    """How long this part takes."""
    return max(self.operations, self.ici, self.dcn)

  @property
  def bound(self) -> str:
    """What it waits for."""
    if self.secs > self.operations:
      return "ici" if self.ici >= self.dcn else "dcn"
    return "compute" if self.compute >= self.hbm else "hbm"


@dataclasses.dataclass(frozen=True)
class Roofline:
  """A step by parts."""

  parts: tuple[Part, ...]

  @property
  def secs(self) -> float:
    """Of a step."""
    return math.fsum(part.secs for part in self.parts)

  @property
  def flops(self) -> float:
    """Of a chip and step, as compiled: what is computed again included."""
    return math.fsum(part.flops for part in self.parts)

  @property
  def bytes(self) -> float:
    """Of a chip's memory and step."""
    return math.fsum(part.bytes for part in self.parts)

  def total(self, limit: str) -> float:
    """Seconds that a step takes of one of `LIMITS`."""
    return math.fsum(getattr(part, limit) for part in self.parts)

  @property
  def bound(self) -> str:
    """What most of a step's time waits for."""
    waits = dict.fromkeys(LIMITS, 0.0)
    for part in self.parts:
      waits[part.bound] += part.secs
    return max(waits, key=lambda name: waits[name])


def of(
  module: hlo.Module,
  found: Sequence[Collective],
  chip: Chip,
  rate: Callable[[Collective], float],
) -> Roofline:
  """The roofline of a program on a chip.

  Args:
    module: the program.
    found: its collectives.
    chip: what runs it.
    rate: bytes a second that a chip sends in one, see `collective_rate`.
  """
  sums: dict[str, dict[str, float]] = {}
  for executed in hlo.walk(module):
    part = sums.setdefault(executed.loop, _nothing())
    products = executed.times * work.flops(
      module, executed.computation, executed.instruction
    )
    moved = executed.times * work.traffic(
      module, executed.computation, executed.instruction
    )
    compute, hbm = products / chip.flops, moved / chip.hbm_rate
    part["flops"] += products
    part["bytes"] += moved
    part["compute"] += compute
    part["hbm"] += hbm
    part["operations"] += max(compute, hbm)
  for one in found:
    part = sums.setdefault(one.loop, _nothing())
    part[one.network.lower()] += one.sent_a_step / rate(one)
  return Roofline(
    tuple(Part(name=name, **numbers) for name, numbers in sums.items())
  )


def _nothing():
  names = [f.name for f in dataclasses.fields(Part) if f.name != "name"]
  return dict.fromkeys(names, 0.0)


def collective_rate(
  chip: Chip, group: Sequence[Any], everyone: Sequence[Any], network: str
) -> float:
  """Bytes a second that a chip sends in a collective of a group of devices.

  Over ICI, two links of each dimension of the torus along which the group
  lies, if it goes all round it; one link if not: rings are cut open then.
  """
  if network == "DCN":
    return chip.dcn_rate
  if not chip.torus:
    return chip.link_rate
  whole = _extent([d.coords for d in everyone])
  links = 0
  for own, all_of_them in zip(
    _extent([d.coords for d in group]), whole, strict=True
  ):
    if own > 1:
      rings = own == all_of_them and own % chip.wraps == 0
      links += 2 if rings else 1
  return max(links, 1) * chip.link_rate


def _extent(coords: Sequence[Sequence[int]]) -> list[int]:
  """Number of different places along each dimension."""
  return [len(set(along)) for along in zip(*coords, strict=True)]


def mfu(model_flops: float, secs: float, chips: int, chip: Chip) -> float:
  """Model FLOPs utilisation (Chowdhery et al. 2022, arXiv:2204.02311).

  `model_flops` are of a step, all chips, and what is computed again does not
  count.
  """
  return model_flops / secs / chips / chip.flops


def as_json(found: Roofline) -> Mapping[str, object]:
  """For the JSON file of a plan."""
  return {
    "step_secs": found.secs,
    "bound": found.bound,
    "flops_per_chip": found.flops,
    "hbm_bytes_per_chip": found.bytes,
    "secs_at_peak": {limit: found.total(limit) for limit in LIMITS},
    "parts": [
      {**dataclasses.asdict(p), "secs": p.secs, "bound": p.bound}
      for p in found.parts
    ],
  }
