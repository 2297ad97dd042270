"""From logical axes and rules to a sharding for every array of a state."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.core import axes, errors, trees
from mmjax.sharding.mesh import BATCH_AXES
from mmjax.sharding.rules import Rules

LARGE_BYTES = 1 << 20  # Above this, fsdp leaves no array replicated.


def param_specs(boxed: Any, mesh: Mesh, rules: Rules) -> dict[str, P]:
  """A `PartitionSpec` by name for parameters boxed with logical axes.

  A rule is left out where the mesh axis does not divide the array's axis. An
  array over 1 MiB that no rule split over `fsdp` is split along its largest
  axis that divides, so that none stays replicated for its odd shape.

  Args:
    boxed: abstract parameters from `eval_shape` of `init`, still boxed.
    mesh: sizes of the mesh axes.
    rules: logical axis -> mesh axes.

  Raises:
    UserError: attention heads do not divide: left whole, most of the work
      would be done on every device.
  """
  table = dict(rules)
  shapes = trees.flatten(nn.meta.unbox(boxed))
  logical = trees.flatten(_axis_names(boxed))
  specs = {}
  for name, leaf in shapes.items():
    names = logical[name].names if name in logical else ()
    _check_heads(name, leaf.shape, names, table, mesh)
    parts = _divisible(leaf.shape, [table.get(n) for n in names], mesh)
    if "fsdp" in {m for m in table.values() if isinstance(m, str)}:
      parts = _split_large(leaf, parts, mesh)
    specs[name] = P(*parts)
  return specs


def _check_heads(name, shape, names, table, mesh):
  for size, axis in zip(shape, names, strict=False):
    over = table.get(axis)
    chosen = (over,) if isinstance(over, str) else (over or ())
    ways = math.prod(mesh.shape[a] for a in chosen)
    if axis == axes.HEADS and size % ways:
      fitting = [n for n in range(1, size + 1) if size % n == 0]
      raise errors.UserError(
        f"The {size} heads of {name!r} do not divide over {ways} devices "
        f"(mesh axes {chosen}). Sizes that fit: {fitting}."
      )


class _Names:
  """A leaf that carries axis names through a tree."""

  def __init__(self, names: Sequence[str | None]):
    self.names = tuple(names)


def _axis_names(boxed):
  is_box = lambda x: isinstance(x, nn.meta.AxisMetadata)  # noqa: E731
  return jax.tree.map(
    lambda x: _Names(x.names if is_box(x) else ()), boxed, is_leaf=is_box
  )


def _divisible(shape, wanted, mesh):
  parts: list[Any] = []
  used: set[str] = set()
  for size, axis in zip(shape, [*wanted, *[None] * len(shape)], strict=False):
    chosen = (axis,) if isinstance(axis, str) else (axis or ())
    ways = math.prod(mesh.shape[a] for a in chosen)
    if ways > 1 and size % ways == 0 and not used & set(chosen):
      parts.append(axis)
      used |= set(chosen)
    else:
      parts.append(None)
  return parts


def _split_large(leaf, parts, mesh):
  ways = mesh.shape["fsdp"]
  size = math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize
  if ways == 1 or "fsdp" in parts or size <= LARGE_BYTES:
    return parts
  free = [
    i for i, n in enumerate(leaf.shape) if parts[i] is None and n % ways == 0
  ]
  if free:
    parts = list(parts)
    parts[max(free, key=lambda i: leaf.shape[i])] = "fsdp"
  return parts


def state_shardings(state: Any, specs: Mapping[str, P], mesh: Mesh) -> Any:
  """A sharding for every array of a training state.

  An array whose name ends with a parameter's name and has its shape (the
  optimizer's moments, the moving average) lives where the parameter does;
  everything else is replicated.
  """

  def place(name, leaf):
    parts = name.split("/")
    for start in range(len(parts)):
      spec = specs.get("/".join(parts[start:]))
      if spec is not None and len(spec) == len(leaf.shape):
        return NamedSharding(mesh, spec)
    return NamedSharding(mesh, P())

  return trees.map_names(place, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Examples are split over all batch axes of the mesh."""
  return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same on every device."""
  return NamedSharding(mesh, P())


def put_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh
) -> dict[str, jax.Array]:
  """Places this process's rows of a batch; the result is the global batch."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_process_local_data(sharding, rows)
    for name, rows in batch.items()
  }


def put_global_batch(
  batch: Mapping[str, np.ndarray], mesh: Mesh
) -> dict[str, jax.Array]:
  """Places a batch of which every process has all rows; each uses its own."""
  sharding = batch_sharding(mesh)
  return {
    name: jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)
    for name, rows in batch.items()
  }


def report(params: Any, shardings: Any) -> list[dict[str, Any]]:
  """Rows to print: name, shape, spec, bytes, bytes per device."""
  placed = trees.flatten(shardings)
  rows = []
  for name, leaf in trees.flatten(params).items():
    itemsize = np.dtype(leaf.dtype).itemsize
    local = placed[name].shard_shape(tuple(leaf.shape))
    rows.append(
      {
        "name": name,
        "shape": tuple(leaf.shape),
        "spec": tuple(placed[name].spec),
        "bytes": math.prod(leaf.shape) * itemsize,
        "bytes_per_device": math.prod(local) * itemsize,
      }
    )
  return rows
