"""The state of a run: everything that a step changes."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from mmjax.core import trees


class TrainState(struct.PyTreeNode):
  """What a checkpoint holds; the data position is saved beside it."""

  # Arrays; in abstract states their shapes, in shardings their placement.
  step: Any  # int32 scalar: optimizer steps done.
  params: Any  # All parameters, trained or not.
  opt_state: Any  # Of the trained parameters only.
  collections: Any  # Mutable collections, e.g. the codebook.
  ema: Any  # Moving average of the trained parameters, or None.
  rng: Any  # Key of the run; each step folds in its number.

  @property
  def variables(self) -> dict[str, Any]:
    """What `model.apply` takes."""
    return {"params": self.params, **self.collections}

  @property
  def ema_variables(self) -> dict[str, Any]:
    """The same with averaged parameters, where there are any."""
    if self.ema is None:
      return self.variables
    averaged = trees.flatten(self.ema)
    params = trees.map_names(lambda n, x: averaged.get(n, x), self.params)
    return {"params": params, **self.collections}


def create(
  variables: dict[str, Any],
  *,
  optimizer,
  trainable: dict[str, bool],
  ema: bool,
  rng: jax.Array,
) -> TrainState:
  """A state at step 0 (traceable: for `eval_shape` and `jit`)."""
  collections = dict(variables)
  params = collections.pop("params")
  trained, _ = trees.split(params, trainable)
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(trained),
    collections=collections,
    ema=jax.tree.map(jnp.copy, trained) if ema else None,
    rng=rng,
  )
