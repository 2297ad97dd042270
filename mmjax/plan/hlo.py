"""Reads the text of a compiled program, as far as its costs need it.

The format is that of XLA's HLO (openxla.org/xla/operation_semantics): one
instruction a line, `%name = type opcode(operands), attributes`.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

BITS = {"pred": 8, "bf16": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"([a-z]+\d*[a-z0-9]*)\[([\d,]*)\](\{[^{}]*\})?")
_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) (\(.*\) -> .*)?\{$")
_CALLED = re.compile(
  r"(?:calls|to_apply|body|called_computations|branch_computations"
  r"|true_computation|false_computation)=\{?((?:%[\w.\-]+(?:, )?)+)\}?"
)


@dataclasses.dataclass(frozen=True)
class Array:
  """An array of a type; `space` 0 is the device's main memory."""

  dtype: str
  shape: tuple[int, ...]
  space: int = 0

  @property
  def bytes(self) -> float:
    """Without the padding of its layout."""
    bits = BITS.get(self.dtype)
    if bits is None:
      bits = int((re.search(r"\d+", self.dtype) or ["8"])[0])
    return math.prod(self.shape) * bits / 8


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line: what it makes, from what."""

  name: str
  opcode: str
  arrays: tuple[Array, ...]  # What it makes; several of a tuple.
  operands: tuple[str, ...]
  text: str  # Between its parentheses: what a constant or parameter is.
  attributes: str
  is_root: bool = False

  @functools.cached_property
  def called(self) -> tuple[str, ...]:
    """Computations that it runs; of a loop the body, not the condition."""
    found = _CALLED.findall(self.attributes)
    return tuple(re.findall(r"%([\w.\-]+)", " ".join(found)))

  def attribute(self, name: str) -> str:
    """The value of an attribute without braces of its own, or ""."""
    match = re.search(rf"\b{name}=(\{{[^{{}}]*\}}|[^\s,]+)", self.attributes)
    return match[1].strip("{}") if match else ""


Computation = dict[str, Instruction]  # By name, in order.


@dataclasses.dataclass(frozen=True)
class Module:
  """A program: computations by name."""

  computations: Mapping[str, Computation]
  entry: str

  def root(self, computation: str) -> Instruction:
    """What a computation returns."""
    instructions = self.computations[computation].values()
    return next(i for i in instructions if i.is_root)

  def operands(self, computation: str, at: Instruction) -> list[Instruction]:
    """What an instruction reads."""
    known = self.computations[computation]
    return [known[name] for name in at.operands if name in known]


@dataclasses.dataclass(frozen=True)
class Executed:
  """An instruction and how often a step runs it."""

  computation: str
  instruction: Instruction
  times: int
  loop: str = ""  # The innermost loop's body; "" = none.


def parse(text: str) -> Module:
  """Reads what `compiled.as_text()` gives."""
  computations: dict[str, Computation] = {}
  current: Computation = {}
  entry = ""
  for line in text.splitlines():
    match = None if " = " in line.split("{")[0] else _HEADER.match(line)
    if match:
      current = computations[match[2]] = {}
      entry = match[2] if match[1] else entry
    elif " = " in line and line.startswith("  "):
      instruction = _instruction(line.strip())
      current[instruction.name] = instruction
  return Module(computations, entry)


def _instruction(line):
  is_root = line.startswith("ROOT ")
  name, _, rest = line.removeprefix("ROOT ").partition(" = ")
  end = _closing(rest, 0) if rest.startswith("(") else rest.index(" ")
  kind, rest = rest[:end], rest[end:].strip()
  opcode, _, _ = rest.partition("(")
  close = _closing(rest, len(opcode))
  inside = rest[len(opcode) + 1 : close - 1]
  return Instruction(
    name.lstrip("%"),
    opcode.strip(),
    tuple(_array(m) for m in _ARRAY.finditer(kind)),
    tuple(re.findall(r"%([\w.\-]+)", inside)),
    inside,
    rest[close:],
    is_root,
  )


def _closing(text, start):
  """The place after the parenthesis that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == "(") - (text[i] == ")")
    if depth == 0:
      return i + 1
  raise ValueError(f"Unbalanced parentheses in {text!r}.")


def _array(match):
  shape = tuple(int(n) for n in match[2].split(",") if n)
  space = re.search(r"S\((\d+)\)", match[3] or "")
  return Array(match[1], shape, int(space[1]) if space else 0)


def walk(module: Module) -> Iterator[Executed]:
  """Every instruction that runs, with the trips of the loops around it.

  Fusions are one instruction; of branches each counts as run.
  """
  yield from _walk(module, module.entry, 1, "")


def _walk(module, computation, times, loop):
  for instruction in module.computations[computation].values():
    if instruction.opcode == "while":
      trips = trip_count(module, instruction)
      (body,) = instruction.called
      yield from _walk(module, body, times * trips, body)
    elif instruction.opcode in ("call", "conditional", "async-start"):
      for called in instruction.called:
        yield from _walk(module, called, times, loop)
    else:
      yield Executed(computation, instruction, times, loop)


def trip_count(module: Module, loop: Instruction) -> int:
  """How often a loop's body runs.

  As the compiler says it, or else from the bound that its condition compares
  with and the step of its counter: loops count up from 0, those of `lax.scan`
  by 1, those of the partitioner, unrolled, by 2.
  """
  known = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', loop.attributes)
  if known:
    return int(known[1])
  condition = loop.attribute("condition").lstrip("%")
  bound = max(_integers(module, condition), default=1)
  return -(-bound // _step(module, condition, loop.called[0]))


def _step(module, condition, body):
  """What a loop's counter grows by; 1 if it cannot be seen."""
  compared = module.operands(condition, module.root(condition))
  counters = [i for i in compared if i.opcode == "get-tuple-element"]
  if len(counters) != 1:
    return 1
  place = int(counters[0].attribute("index"))
  root = module.root(body)
  if root.opcode != "tuple" or place >= len(root.operands):
    return 1
  grown = module.computations[body].get(root.operands[place])
  if grown is None or grown.opcode != "add":
    return 1
  steps = [
    int(i.text)
    for i in module.operands(body, grown)
    if i.opcode == "constant" and i.text.isdigit()
  ]
  return steps[0] if steps and steps[0] > 0 else 1


def _integers(module, computation):
  for instruction in module.computations.get(computation, {}).values():
    if instruction.opcode == "constant" and instruction.text.isdigit():
      yield int(instruction.text)
    for called in instruction.called:
      yield from _integers(module, called)
