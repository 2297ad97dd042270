"""What instructions cost: multiply-adds, and bytes of the main memory."""

import itertools
import math
import re

from mmjax.plan.hlo import Array, Instruction, Module

# Move nothing: they rename, or say what follows.
FREE = {
  "after-all",
  "bitcast",
  "bitcast-convert",
  "constant",
  "domain",
  "get-tuple-element",
  "iota",
  "opt-barrier",
  "parameter",
  "partition-id",
  "replica-id",
  "reshape",
  "tuple",
}
# Read a part of what they are given.
SLICES = ("dynamic-slice", "slice", "gather")
UPDATE = "dynamic-update-slice"


def flops(module: Module, computation: str, at: Instruction) -> float:
  """Of matrix products and convolutions, 2 per multiply-add."""
  if at.opcode == "dot":
    left = module.operands(computation, at)[0].arrays[0].shape
    summed = at.attribute("lhs_contracting_dims")
    places = [int(i) for i in summed.split(",") if i]
    contracted = math.prod(left[i] for i in places)
    return 2.0 * math.prod(at.arrays[0].shape) * contracted
  if at.opcode == "convolution":
    left, kernel = module.operands(computation, at)
    return _convolution(at, left.arrays[0].shape, kernel.arrays[0].shape)
  if at.opcode == "fusion":
    inside = (
      flops(module, called, inner)
      for called in at.called
      for inner in module.computations[called].values()
    )
    return sum(inside, 0.0)
  return 0.0


def _convolution(at, left, kernel):
  """Counts products with numbers, not those with padding.

  The compiler of TPUs writes a batched product as a convolution, whose batch
  is a spatial axis, dilated and padded so that each window meets one entry.
  """
  spec = re.match(r"(\w+)_(\w+)->(\w+)", at.attribute("dim_labels"))
  if spec is None:
    return 0.0
  of_left, of_kernel, of_out = (list(spec[i]) for i in (1, 2, 3))
  out = at.arrays[0].shape
  window = at.attribute("window")
  inputs = kernel[of_kernel.index("i")]
  total = 2.0 * inputs * out[of_out.index("b")] * out[of_out.index("f")]
  axes = sorted(c for c in of_out if c.isdigit())
  for i, axis in enumerate(axes):
    total *= _meetings(
      left[of_left.index(axis)],
      kernel[of_kernel.index(axis)],
      out[of_out.index(axis)],
      {name: values[i] for name, values in _window(window, len(axes)).items()},
    )
  return total


def _window(text, rank):
  """stride, pad and dilations by axis."""
  found = dict(re.findall(r"(\w+)=([\d_x\-]+)", text))

  def numbers(name, default):
    given = found.get(name)
    return [int(n) for n in given.split("x")] if given else [default] * rank

  pads = found.get("pad")
  low = [int(p.split("_")[0]) for p in pads.split("x")] if pads else [0] * rank
  return {
    "stride": numbers("stride", 1),
    "low": low,
    "lhs_dilate": numbers("lhs_dilate", 1),
    "rhs_dilate": numbers("rhs_dilate", 1),
  }


def _meetings(size, kernel, out, window):
  """Pairs of an output and a kernel entry that meet a number of the input."""
  count = 0
  for o, k in itertools.product(range(out), range(kernel)):
    at = o * window["stride"] + k * window["rhs_dilate"] - window["low"]
    at, rest = divmod(at, window["lhs_dilate"])
    count += rest == 0 and 0 <= at < size
  return count


def traffic(module: Module, computation: str, at: Instruction) -> float:
  """Bytes read from and written to the main memory.

  What a fusion makes and uses within itself never gets there. Of what is
  sliced only the slice is read, of what is updated in place the update.
  """
  if at.opcode in FREE or at.opcode.endswith("-done"):
    return 0.0
  if 'custom_call_target="AllocateBuffer"' in at.attributes:
    return 0.0
  if at.opcode == UPDATE:
    return 2 * _main(module.operands(computation, at)[1].arrays)
  if at.opcode in SLICES:
    return 2 * _main(at.arrays)
  operands = module.operands(computation, at)
  if at.opcode == "fusion" and at.called:
    (called,) = at.called[:1]
    read = (
      _read(module, called, i, operand) for i, operand in enumerate(operands)
    )
    return sum(read, 0.0) + _written(module, called, at)
  if at.opcode.endswith("-start"):  # Makes a tuple of what it reads and writes.
    return _main(at.arrays)
  return sum((_main(o.arrays) for o in operands), _main(at.arrays))


def _main(arrays: tuple[Array, ...]) -> float:
  return sum((a.bytes for a in arrays if a.space == 0), 0.0)


def _read(module, called, index, operand):
  """Of an operand of a fusion."""
  if not any(a.space == 0 for a in operand.arrays):
    return 0.0
  instructions = module.computations[called]
  parameter = next(
    (
      i
      for i in instructions.values()
      if i.opcode == "parameter" and i.text == str(index)
    ),
    None,
  )
  if parameter is None:
    return _main(operand.arrays)
  names = {parameter.name}
  total = 0.0
  for use in instructions.values():  # In order: renamed before used.
    if not names & set(use.operands):
      continue
    if use.opcode in ("bitcast", "reshape"):
      names.add(use.name)
    elif use.opcode in SLICES and use.operands[0] in names:
      total += sum(a.bytes for a in use.arrays)
    elif use.opcode == "fusion":
      for place, name in enumerate(use.operands):
        if name in names:
          total += _read(module, use.called[0], place, operand)
    elif use.opcode == UPDATE and use.operands[0] in names:
      total += 0.0  # Written in place.
    else:
      return _main(operand.arrays)
  return min(total, _main(operand.arrays))


def _written(module, called, at):
  """By a fusion: the updates of what it updates in place, else all."""
  root = module.root(called)
  roots = [root]
  if root.opcode == "tuple":
    roots = module.operands(called, root)
  total = 0.0
  for made, array in zip(roots, at.arrays, strict=False):
    while made.opcode in ("bitcast", "reshape", "copy") and made.operands:
      made = module.computations[called][made.operands[0]]
    if array.space:
      continue
    if made.opcode == "fusion" and len(made.arrays) == 1:
      total += _written(module, made.called[0], made)
    elif made.opcode == UPDATE:
      update = module.computations[called][made.operands[1]]
      total += 2 * sum(a.bytes for a in update.arrays)
    else:
      total += array.bytes
  return total
