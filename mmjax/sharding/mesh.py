"""The mesh: devices arranged along named axes."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from mmjax.core import errors

AXES = ("replica", "data", "fsdp", "tensor", "sequence")
# Mesh axes over which the examples of a batch are split.
BATCH_AXES = ("replica", "data", "fsdp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshShape:
  """Number of devices along each axis; one of them may be -1: what is left."""

  replica: int = 1
  data: int = -1
  fsdp: int = 1
  tensor: int = 1
  sequence: int = 1

  def resolve(self, num_devices: int) -> dict[str, int]:
    """Fills in -1.

    Raises:
      UserError: the axes do not multiply to the devices.
    """
    sizes = dataclasses.asdict(self)
    for axis, size in sizes.items():
      if size < 1 and size != -1:
        raise errors.UserError(
          f"mesh.{axis}={size}, expected a positive number or -1."
        )
    free = [axis for axis, size in sizes.items() if size == -1]
    if len(free) > 1:
      raise errors.UserError(
        f"Only one axis of the mesh may be -1, got {free}."
      )
    known = math.prod(size for size in sizes.values() if size != -1)
    if free and num_devices % known == 0:
      sizes[free[0]] = num_devices // known
    if math.prod(sizes.values()) != num_devices:
      divisors = [d for d in range(1, num_devices + 1) if num_devices % d == 0]
      raise errors.UserError(
        f"The mesh {sizes} takes {'a multiple of ' if free else ''}{known} "
        f"devices, there are {num_devices}. Sizes that fit: {divisors}."
      )
    return sizes


def make_mesh(
  shape: MeshShape, devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """Arranges devices (default: all) as a mesh.

  The axes are `Auto`: under `jax.make_mesh`'s default, Explicit, Linen's
  embeddings and dropout fail. Of several slices of TPUs, the outermost axis
  larger than 1 goes across them.

  Raises:
    UserError: the axes do not multiply to the devices, or slices do not
      divide the outermost one.
  """
  devices = jax.devices() if devices is None else devices
  sizes = shape.resolve(len(devices))
  types = (AxisType.Auto,) * len(AXES)
  slices = _slices(devices)
  if len(slices) == 1:
    return jax.make_mesh(
      tuple(sizes.values()), AXES, axis_types=types, devices=devices
    )
  outer = next(axis for axis, size in sizes.items() if size > 1)
  if sizes[outer] % len(slices):
    raise errors.UserError(
      f"mesh.{outer}={sizes[outer]} is the outermost axis and goes across the "
      f"{len(slices)} slices: set it, or mesh.replica, to a multiple of "
      f"{len(slices)}."
    )
  inner = {**sizes, outer: sizes[outer] // len(slices)}
  parts = [
    jax.make_mesh(
      tuple(inner.values()), AXES, axis_types=types, devices=members
    ).devices
    for members in slices
  ]
  return Mesh(
    np.concatenate(parts, axis=AXES.index(outer)), AXES, axis_types=types
  )


def _slices(devices):
  """The devices of each slice of TPUs, which faster links join."""
  slices: dict[int, list[jax.Device]] = {}
  for device in devices:
    index = getattr(device, "slice_index", 0) if _is_tpu(device) else 0
    slices.setdefault(index or 0, []).append(device)
  return [slices[index] for index in sorted(slices)]


def _is_tpu(device):
  return device.platform == "tpu"


def batch_ways(mesh: Mesh) -> int:
  """Number of parts that a batch is split into."""
  return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch_size(batch_size: int, accumulate: int, mesh: Mesh) -> None:
  """Checks that each device gets as many examples in each micro-batch.

  Raises:
    UserError: it does not divide; names the nearest sizes that do.
  """
  ways = batch_ways(mesh) * accumulate
  if batch_size < 1 or batch_size % ways:
    below, above = batch_size // ways * ways, (batch_size // ways + 1) * ways
    near = above if below == 0 else f"{below} or {above}"
    raise errors.UserError(
      f"train.batch_size={batch_size} does not split over "
      f"{batch_ways(mesh)} devices x train.accumulate={accumulate}; set it "
      f"to a multiple of {ways}, e.g. {near}."
    )
