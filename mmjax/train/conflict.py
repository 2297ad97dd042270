"""Do objectives pull the shared parameters the same way?"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses


def gradients(
  loss_of: Callable[[str, Any], jax.Array], names: Sequence[str], params: Any
) -> dict[str, Any]:
  """The gradient of each objective alone.

  Each is traced by itself, so that its backward pass holds nothing of the
  others; XLA merges their forward passes.

  Args:
    loss_of: `loss_of(name, params)`, a scalar.
    names: of the objectives.
    params: what to differentiate by.
  """
  return {n: jax.grad(lambda p, n=n: loss_of(n, p))(params) for n in names}


def norms(grads: Mapping[str, Any]) -> dict[str, jax.Array]:
  """The length of each gradient."""
  return {name: optax.tree.norm(grad) for name, grad in grads.items()}


def metrics(grads: Mapping[str, Any]) -> dict[str, LossTerm]:
  """Length of each gradient, and the cosine of each pair.

  `grad_norm/<a>` and `grad_cosine/<a>/<b>`. Cosines are over the arrays that
  both reach: an objective's own head says nothing about conflict. Yu et al.
  2020 (arXiv:2001.06782) speak of conflict below 0.

  Args:
    grads: of each objective, by all trained parameters.
  """
  found = {
    f"grad_norm/{name}": losses.constant(norm)
    for name, norm in norms(grads).items()
  }
  for a, b in itertools.combinations(grads, 2):
    found[f"grad_cosine/{a}/{b}"] = _cosine(grads[a], grads[b])
  return found


def _cosine(first: Any, second: Any) -> LossTerm:
  """Counts nothing where the two have no array in common."""
  pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
  products = jnp.stack(
    [
      jnp.stack([jnp.vdot(a, a), jnp.vdot(a, b), jnp.vdot(b, b)])
      for a, b in pairs
    ]
  )  # Arrays, 3.
  both = (products[:, 0] > 0.0) & (products[:, 2] > 0.0)
  aa, ab, bb = jnp.sum(jnp.where(both[:, None], products, 0.0), axis=0)
  shared = (jnp.sum(both) > 0).astype(jnp.float32)
  safe = jnp.where(shared > 0.0, jnp.sqrt(aa) * jnp.sqrt(bb), 1.0)
  return LossTerm(shared * ab / safe, shared)
