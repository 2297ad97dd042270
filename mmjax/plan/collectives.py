"""Collectives of a compiled program: bytes, mesh axes, and by which network."""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from mmjax.plan import hlo

# Bytes that each of n chips sends, as a share of the larger of what a chip
# has before and after: in a ring, n - 1 times a part of 1 / n, or, to reduce
# and then gather, twice that.
SENT: dict[str, Callable[[int], float]] = {
  "all-gather": lambda n: (n - 1) / n,
  "all-reduce": lambda n: 2 * (n - 1) / n,
  "reduce-scatter": lambda n: (n - 1) / n,
  "all-to-all": lambda n: (n - 1) / n,
  "ragged-all-to-all": lambda n: (n - 1) / n,
  "collective-permute": lambda n: 1.0,
}
# A fusion of the TPU's compiler, of an all-reduce and a slice of it.
SCATTER = "all-reduce-scatter"
# The TPU's compiler starts a collective in one fusion and ends it in another;
# those in between and at the end name it again.
START = 'custom_call_target="AsyncCollectiveStart"'
LATER = ('custom_call_target="AsyncCollectiveDone"', "async_collective_fusion")
# Between slices a collective is a send and a receive, through the hosts; what
# it does there stands beside it.
BETWEEN_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
TRANSFERS = {
  "ALL_GATHER": "all-gather",
  "ALL_REDUCE": "all-reduce",
  "ALL_TO_ALL": "all-to-all",
  "ONE_TO_ONE": "collective-permute",
  "REDUCE_SCATTER": "reduce-scatter",
}


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a step."""

  kind: str
  axes: tuple[str, ...]  # Of the mesh, along which its groups lie.
  size: int  # Chips of a group.
  network: str  # "ICI" or "DCN".
  bytes: float  # Of one group's array, as a chip has it whole.
  sent: float  # Bytes that a chip sends each time.
  times: int  # A step.
  computation: str
  loop: str
  group: tuple[int, ...]  # Of the first device.

  @property
  def sent_a_step(self) -> float:
    """Bytes that a chip sends in a step."""
    return self.sent * self.times


def find(
  module: hlo.Module,
  mesh: Mapping[str, int],
  slice_of: Callable[[int], int] = lambda index: 0,
) -> list[Collective]:
  """All collectives of a step.

  Args:
    module: the program.
    mesh: size of each axis, in the order in which devices are counted.
    slice_of: the slice of the device at a place of the mesh.
  """
  found = []
  for executed in hlo.walk(module):
    for kind, at in _within(module, executed.instruction):
      made = _collective(kind, at, executed, mesh, slice_of)
      if made:
        found.append(made)
  return found


def _within(
  module: hlo.Module, at: hlo.Instruction
) -> Iterator[tuple[str, hlo.Instruction]]:
  """The collectives that an instruction is, or that its fusion has."""
  kind = at.opcode.removesuffix("-start")
  if kind in SENT:
    yield kind, at
  elif at.opcode == "send" and (found := BETWEEN_SLICES.search(at.attributes)):
    if found[1] not in TRANSFERS:
      raise ValueError(f"An unknown transfer between slices: {found[1]}.")
    yield TRANSFERS[found[1]], at
  elif at.opcode == "fusion" and not _continues(module, at):
    for called in at.called:
      for inner in module.computations[called].values():
        for kind, one in _within(module, inner):
          scatters = kind == "all-reduce" and called.startswith(SCATTER)
          yield "reduce-scatter" if scatters else kind, one


def _continues(module, fusion):
  """Whether a fusion goes on with a collective that was counted before."""
  later = False
  for called in fusion.called:
    later |= called.startswith(LATER[1])
    for inner in module.computations[called].values():
      if START in inner.attributes:
        return False
      later |= LATER[0] in inner.attributes
  return later


def _collective(kind, at, executed, mesh, slice_of):
  total = math.prod(mesh.values())
  if at.opcode == "send":
    group = _one_of_each_slice(at, total, slice_of)
  else:
    group = _first_group(at, total)
  if len(group) < 2 and kind != "collective-permute":
    return None
  axes = _varying(group, mesh)
  slices = {slice_of(i) for i in group}
  arrays = at.arrays
  if at.opcode.endswith("-start"):  # (what it reads, what it makes, ...).
    arrays = arrays[1:2] if len(arrays) > 1 else arrays
  elif at.opcode == "send":  # (what it sends, its state, a token).
    arrays = arrays[:1]
  size = sum((a.bytes for a in arrays), 0.0)
  if kind == "reduce-scatter" and at.opcode.startswith("reduce-scatter"):
    size *= len(group)  # Makes a part of what it takes.
  if kind == "all-gather" and at.opcode == "send":
    size *= len(group)  # Sends its part.
  return Collective(
    kind,
    axes,
    len(group),
    "DCN" if len(slices) > 1 else "ICI",
    size,
    size * SENT[kind](len(group)),
    executed.times,
    executed.computation,
    executed.loop,
    group,
  )


def _one_of_each_slice(at, total, slice_of):
  """A device of each slice that takes part, at the same place in it."""
  first = {}
  for device in range(total):
    first.setdefault(slice_of(device), device)
  # "{1,2}x{0:15}", slices by devices; or {100003->200003}, one to one.
  named = re.search(r'_xla_megascale_target="\{([\d,]+)\}x', at.attributes)
  number = len(_numbers(named[1])) if named else 2
  return tuple(first.values())[:number]


def _first_group(at, total):
  if at.opcode.startswith("collective-permute"):
    pairs = re.findall(r"\{(\d+),(\d+)\}", at.attributes)
    moves = [(int(a), int(b)) for a, b in pairs if a != b]
    return moves[0] if moves else ()
  for groups in groups_of(at.attributes, total):
    return tuple(groups)
  return ()


def groups_of(attributes: str, total: int) -> Sequence[Sequence[int]]:
  """Replica groups, in any of the forms in which XLA writes them.

  `{{0,1},{2,3}}`; `[2,2]<=[4]` and `[2,2]<=[2,2]T(1,0)`, a reshaped and
  transposed count; `mesh['a'=2,'b'=2] {'a'}`, along axes of a mesh, which may
  have `device_ids=(...)` like the second form, and parts of axes,
  `'a':(1)2`. None means all devices.
  """
  text = attributes.partition("replica_groups=")[2]
  if text.startswith("{{"):
    inside = text[: text.index("}}") + 1]
    return [_numbers(g) for g in re.findall(r"\{([\d,]+)\}", inside)]
  if text.startswith("mesh["):
    return _mesh_groups(text)
  match = re.match(r"\[([\d,]+)\]<=(\[[\d,]+\](?:T\([\d,]+\))?)", text)
  if match:
    return _iota(match[2]).reshape(_numbers(match[1])).tolist()
  return [range(total)]


def _mesh_groups(text):
  axes = [(n, int(s)) for n, s in re.findall(r"'([^']+)'=(\d+)", text)]
  shape = [size for _, size in axes]
  order = re.search(r"device_ids=\((\[[^)]*?\](?:T\([\d,]+\))?)\)", text)
  chosen = re.search(r"[)\]] \{([^}]*)\}", text)
  ids = _iota(order[1]) if order else np.arange(math.prod(shape))
  names = re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", chosen[1])
  sizes, varying = [], []
  for name, size in axes:
    parts = [(int(a), int(b)) for n, a, b in names if n == name and a]
    whole = any(n == name and not a for n, a, _ in names)
    if not parts:
      varying += [len(sizes)] if whole else []
      sizes.append(size)
    for before, part in parts:  # Split into before, part, after.
      varying.append(len(sizes) + 1)
      sizes += [before, part, size // before // part]
  ids = ids.reshape(sizes)
  ids = np.moveaxis(ids, varying, range(-len(varying), 0))
  return ids.reshape(-1, math.prod(sizes[i] for i in varying)).tolist()


def _iota(text):
  """`[2,4]T(1,0)`: a count, reshaped, transposed, flat."""
  shape = _numbers(re.match(r"\[([\d,]+)\]", text)[1])
  ids = np.arange(math.prod(shape)).reshape(shape)
  order = re.search(r"T\(([\d,]+)\)", text)
  return (ids.transpose(_numbers(order[1])) if order else ids).reshape(-1)


def _numbers(text):
  return [int(n) for n in text.split(",")]


def _varying(group, mesh):
  """Axes along which the devices of a group differ."""
  places = np.unravel_index(np.asarray(group, int), tuple(mesh.values()))
  return tuple(
    name
    for name, place in zip(mesh, places, strict=True)
    if len(set(place.tolist())) > 1
  )
