"""Where activations live on the mesh."""

import math
import warnings

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec as P


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


def _divides(name, size, over, mesh):
  chosen = (over,) if isinstance(over, str) else (over or ())
  ways = math.prod(mesh.shape[axis] for axis in chosen)
  if size % ways and size > 1:  # One token of a text that is said is no loss.
    warnings.warn(
      f"{size} along {name!r} do not divide over {ways} devices (mesh axes "
      f"{chosen}): they stay whole, on each of these devices.",
      stacklevel=3,
    )
  return size % ways == 0
