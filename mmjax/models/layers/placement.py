"""Where activations live on the mesh, and parameters while they are read."""

import functools
import math
import warnings

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from mmjax.core import axes


def place(x: jax.Array, names: tuple[str | None, ...]) -> jax.Array:
  """Splits an activation over the mesh, as the rules say of its axes.

  Does nothing without a mesh (`jax.set_mesh`) or rules
  (`nn.logical_axis_rules`). An axis that does not divide over its part of the
  mesh stays whole, and a warning says so: 197 tokens over 2 devices, say.

  Args:
    x: any activation.
    names: of its axes, see `core.axes.ACTIVATION_AXES`; None = whole.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or not nn.get_logical_axis_rules():
    return x
  wanted = nn.logical_to_mesh_axes(names)
  parts = [
    over if _divides(name, size, over, mesh) else None
    for name, size, over in zip(names, x.shape, wanted, strict=True)
  ]
  return jax.lax.with_sharding_constraint(x, P(*parts))


def gather(kernel: jax.Array, names: tuple[str | None, ...]) -> jax.Array:
  """A parameter as a product reads it: whole along the axes of the batch.

  ZeRO-3 (Rajbhandari et al. 2020, arXiv:1910.02054): what is split over the
  devices that also split the batch is gathered for the product, and its
  gradient scattered. Left to itself, XLA moves parts of products round the
  devices instead where `fsdp` is all there is: of a joint L/16 step on 16 x
  v5e 0.34 s by the roofline, and 0.24 s so.

  Args:
    kernel: in the dtype of the product: fewer bytes travel.
    names: of its axes, see `core.axes.PARAMETER_AXES`.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or not nn.get_logical_axis_rules():
    return kernel
  (batch,) = nn.logical_to_mesh_axes((axes.ACT_BATCH,))
  split = [
    _chosen(over) if size % _ways(over, mesh) == 0 else ()
    for size, over in zip(
      kernel.shape, nn.logical_to_mesh_axes(names), strict=True
    )
  ]
  whole = [
    tuple(axis for axis in over if axis not in _chosen(batch)) for over in split
  ]
  return kernel if whole == split else _gather(P(*split), P(*whole), kernel)


# Autodiff would place the gradient like what it is the gradient of: whole on
# every device, a sum over all of them.
@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(split, whole, kernel):
  del split
  return jax.lax.with_sharding_constraint(kernel, whole)


def _gather_forward(split, whole, kernel):
  return _gather(split, whole, kernel), None


def _gather_backward(split, whole, saved, cotangent):
  del whole, saved
  return (jax.lax.with_sharding_constraint(cotangent, split),)


_gather.defvjp(_gather_forward, _gather_backward)


def batch_ways(size: int) -> int:
  """Over how many devices a batch of so many examples is split."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or not nn.get_logical_axis_rules():
    return 1
  (over,) = nn.logical_to_mesh_axes((axes.ACT_BATCH,))
  ways = _ways(over, mesh)
  return ways if size % ways == 0 else 1


def _chosen(over):
  return (over,) if isinstance(over, str) else tuple(over or ())


def _ways(over, mesh):
  return math.prod(mesh.shape[axis] for axis in _chosen(over))


def _divides(name, size, over, mesh):
  ways = _ways(over, mesh)
  if size % ways and size > 1:  # One token of a text that is said is no loss.
    warnings.warn(
      f"{size} along {name!r} do not divide over {ways} devices (mesh axes "
      f"{_chosen(over)}): they stay whole, on each of these devices.",
      stacklevel=3,
    )
  return size % ways == 0
