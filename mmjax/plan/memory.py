"""Memory of a chip by kind, from the compiler and from the state's shapes."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from mmjax.plan import hlo, work

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes of one chip, at most at one time.

  The first four are what a step is given, exact but for the padding of
  layouts, which is counted by itself. What the compiler sets aside besides is
  split into what the forward pass keeps for the backward pass (of scanned
  layers; elsewhere it is in `temporaries`) and the rest.
  """

  parameters: float
  optimizer: float
  other_state: float  # Moving averages, codebooks, keys.
  batch: float
  padding: float
  activations: float
  temporaries: float
  outputs: float  # Not in the place of something given.
  program: float

  @property
  def total(self) -> float:
    """All of them, what has to fit."""
    return math.fsum(dataclasses.astuple(self))


def of(compiled: Any, state: Any, batches: Any, module: hlo.Module) -> Memory:
  """Splits what `memory_analysis()` says of a compiled step.

  Args:
    compiled: the step.
    state: abstract, with shardings.
    batches: abstract, as a chip has them.
    module: the step's program.
  """
  stats = compiled.memory_analysis()
  temporaries = float(stats.temp_size_in_bytes)
  outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
  kinds = {
    "parameters": shard_bytes(state.params),
    "optimizer": shard_bytes(state.opt_state),
    "batch": shard_bytes(batches),
  }
  given = shard_bytes(state)
  kinds["other_state"] = given - kinds["parameters"] - kinds["optimizer"]
  padding = stats.argument_size_in_bytes - given - kinds["batch"]
  kept = min(kept_bytes(module, state.params), temporaries)
  return Memory(
    **kinds,
    padding=padding,
    activations=kept,
    temporaries=temporaries - kept,
    outputs=float(outputs),
    program=float(stats.generated_code_size_in_bytes),
  )


def shard_bytes(tree: Any) -> float:
  """Bytes of one chip's share of abstract arrays."""

  def of_one(x):
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
      x = jax.eval_shape(jax.random.key_data, x)
    shape = x.shape
    sharding = getattr(x, "sharding", None)
    if sharding is not None:
      shape = sharding.shard_shape(tuple(shape))
    return math.prod(shape) * np.dtype(x.dtype).itemsize

  return float(sum(of_one(x) for x in jax.tree.leaves(tree)))


def kept_bytes(module: hlo.Module, params: Any) -> float:
  """Bytes that loops over layers write, a layer at a time.

  Those of the shape of a parameter are its gradient: not counted.
  """
  gradients = {
    x.sharding.shard_shape(tuple(x.shape)) for x in jax.tree.leaves(params)
  }
  total = 0.0
  for computation in module.computations.values():
    for instruction in computation.values():
      if instruction.opcode == "while":
        total += _written_by(module, instruction, gradients)
  return total


def _written_by(module, loop, gradients):
  (body,) = loop.called
  root = module.root(body)
  trips = hlo.trip_count(module, loop)
  total = 0.0
  for made, array in zip(
    module.operands(body, root), loop.arrays, strict=False
  ):
    stacked = array.shape[:1] == (trips,) and array.space == 0
    if stacked and array.shape not in gradients and _updates(module, made):
      total += array.bytes
  return total


def _updates(module, made):
  if made.opcode == "fusion" and made.called:
    inner = module.computations[made.called[0]].values()
    return any(i.opcode == work.UPDATE for i in inner)
  return made.opcode == work.UPDATE


def missing(message: str) -> Mapping[str, float] | None:
  """Bytes wanted and available, from what the compiler says when they differ.

  None if it is another error.
  """
  if "RESOURCE_EXHAUSTED" not in message and "Ran out of memory" not in message:
    return None
  number = r"([\d.]+)([KMGT]?)"
  for pattern in (
    rf"\({number}i?B?\) exceeds available \w+ \({number}i?B?\)",
    rf"Used {number} of {number} hbm",
  ):
    found = re.search(pattern, message)
    if found:
      wanted, unit, available, other = found.groups()
      return {
        "wanted": float(wanted) * UNITS[unit],
        "available": float(available) * UNITS[other],
      }
  return {"wanted": math.nan, "available": math.nan}
