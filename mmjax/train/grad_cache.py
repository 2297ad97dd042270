"""Exact gradients of objectives that couple examples, from micro-batches.

Source: GradCache (Gao et al. 2021, arXiv:2101.06983). The features of all
micro-batches are computed without a gradient; the loss of the whole batch is
differentiated by them and by what else it asks of the model, a temperature;
and each micro-batch carries the gradient of its features on. Costs a forward
pass of what the features need.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mmjax.core.interfaces import LossTerm
from mmjax.objectives import multitask
from mmjax.objectives.forward_once import ForwardOnce

Features = Any  # Tree of arrays whose leading axis is the example.


def couples(objective: Any) -> bool:
  """Whether micro-batches are not one large batch to an objective."""
  return bool(getattr(objective, "couples_examples", False))


def can_cache(objective: Any) -> bool:
  """Whether it does in two stages what `CoupledObjective` asks for."""
  return hasattr(objective, "features") and hasattr(objective, "from_features")


def coupled(objectives: multitask.Objectives) -> multitask.Objectives:
  """Those whose gradient takes the whole batch, and can have it."""
  return {
    name: item
    for name, item in objectives.items()
    if couples(item.objective) and can_cache(item.objective)
  }


def collect(
  objectives: multitask.Objectives,
  call: Callable[..., Any],
  batches: Mapping[str, Mapping[str, jax.Array]],
) -> dict[str, Features]:
  """The features of a micro-batch, by objective."""
  applies = {
    task: ForwardOnce(call, batch, train=True)
    for task, batch in batches.items()
  }
  found = {}
  for name, item in objectives.items():
    objective: Any = item.objective  # `coupled` has seen that it has these.
    found[name] = objective.features(applies[item.task], batches[item.task])
  return found


def from_features(
  objectives: multitask.Objectives, features: Mapping[str, Features]
) -> multitask.Objectives:
  """The objectives of a whole batch whose features are known."""
  return {
    name: dataclasses.replace(
      item, objective=_FromFeatures(item.objective, features[name])
    )
    for name, item in objectives.items()
  }


def carry_on(
  objectives: multitask.Objectives, gradients: Mapping[str, Features]
) -> multitask.Objectives:
  """Objectives of a micro-batch with these gradients of its features."""
  return {
    name: dataclasses.replace(
      item, objective=_CarryOn(item.objective, gradients[name])
    )
    for name, item in objectives.items()
  }


@dataclasses.dataclass(frozen=True)
class _Stage:
  """An objective in one of its two stages."""

  objective: Any
  given: Features  # Features of the whole batch, or gradients of a part's.

  def fields(self, info):
    return self.objective.fields(info)

  def heads(self, info):
    return self.objective.heads(info)

  def chance(self, info, batch_size):
    return self.objective.chance(info, batch_size)


class _FromFeatures(_Stage):
  def __call__(self, apply, batch, *, rng, train):
    return self.objective.from_features(
      self.given, apply, batch, rng=rng, train=train
    )


class _CarryOn(_Stage):
  """The product with the gradients, which has them as its gradient."""

  def __call__(self, apply, batch, *, rng, train):
    del rng, train
    products = jax.tree.map(
      lambda x, g: jnp.sum(x.astype(jnp.float32) * g.astype(jnp.float32)),
      self.objective.features(apply, batch),
      self.given,
    )
    total = sum(jax.tree.leaves(products), jnp.zeros((), jnp.float32))
    return LossTerm(total, jnp.ones((), jnp.float32)), {}
