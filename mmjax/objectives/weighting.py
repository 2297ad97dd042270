"""How much each objective counts: constant, or learned with the model.

What is learned are parameters under `loss_weights/`, so that checkpoints, the
moving average and patterns of `optimizer.lr_factors` and `finetune.frozen`
treat them as any others. A learned factor multiplies the config's weight.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from mmjax.core import errors, piecewise
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import multitask

PART = "loss_weights"  # Of the parameters, and of the collection.


class Signals(NamedTuple):
  """What a step found, for the factors to learn from."""

  terms: Mapping[str, LossTerm]  # Over the whole batch, by objective.
  weights: Mapping[str, jax.Array]  # Of the config, at this step.
  # Of the gradient of weight * mean by the shared parameters; without `shared`
  # empty.
  norms: Mapping[str, jax.Array]


@runtime_checkable
class Weighting(Protocol):
  """Learns a factor on the weight of each objective."""

  @property
  def objectives(self) -> tuple[str, ...]:
    """Whose factors are learned; () = of all."""

  @property
  def shared(self) -> tuple[str, ...]:
    """Patterns of parameters whose gradients it needs, by objective."""

  def init(self, names: Sequence[str]) -> tuple[dict, dict]:
    """Parameters, and what is remembered beside them; both may be empty."""
    ...

  def factors(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The factor of each objective that has one."""
    ...

  def learn(
    self, params: Mapping[str, Any], memory: Mapping[str, Any], signals: Signals
  ) -> tuple[dict, dict]:
    """The gradient of `params`, and the new memory."""
    ...


def covered(
  weighting: Weighting, objectives: multitask.Objectives
) -> list[str]:
  """The objectives whose factors are learned: as named, or all that count.

  Raises:
    UserError: an unknown name, or one that never counts.
  """
  counting = [
    name
    for name, item in objectives.items()
    if piecewise.highest(item.weight) > 0.0
  ]
  for name in weighting.objectives:
    if name not in objectives:
      raise errors.unknown(
        "objective of config.weighting.objectives", name, objectives
      )
    if name not in counting:
      raise errors.UserError(
        f"config.weighting.objectives names {name!r}, whose weight is 0."
      )
  return list(weighting.objectives or counting)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Constant:
  """Weights are what the config says."""

  objectives: ClassVar[tuple[str, ...]] = ()
  shared: ClassVar[tuple[str, ...]] = ()

  def init(self, names):
    del names
    return {}, {}

  def factors(self, params):
    del params
    return {}

  def learn(self, params, memory, signals):
    del params, memory, signals
    return {}, {}


CONSTANT = Constant()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Uncertainty:
  """Weighs each loss by how uncertain the model is about it.

  Minimises the sum of weight * (exp(-s) * loss + s / 2), with one log-variance
  s per objective. Source: Kendall et al. 2018 (arXiv:1705.07115), eq. 10, the
  form for cross-entropies. At its optimum exp(-s) * loss = 1/2.
  """

  objectives: tuple[str, ...] = ()
  shared: ClassVar[tuple[str, ...]] = ()

  def init(self, names):
    return {"log_variance": {n: jnp.zeros((), jnp.float32) for n in names}}, {}

  def factors(self, params):
    return {n: jnp.exp(-s) for n, s in params["log_variance"].items()}

  def learn(self, params, memory, signals):
    def slope(name, factor):
      term = signals.terms.get(name)
      if term is None:  # Of a task that is not in this step.
        return jnp.zeros((), jnp.float32)
      slope = signals.weights[name] * (0.5 - factor * term.mean)
      return jnp.where(term.weight > 0, slope, 0.0)

    factors = self.factors(params)
    return {
      "log_variance": {n: slope(n, f) for n, f in factors.items()}
    }, memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradNorm:
  """Makes objectives pull equally, those that lag behind a little harder.

  Source: Chen et al. 2018 (arXiv:1711.02257), eqs. 1 and 2. The factors are
  n * softmax(log_weight): positive, of sum n for n objectives, as the paper
  normalises them after each step. Costs one backward pass per objective, down
  to the shared parameters. They learn at the optimizer's rate; the paper's is
  0.025: `optimizer.lr_factors` for "loss_weights/.*".

  Raises:
    UserError: no shared parameters are named, or alpha is below zero.
  """

  shared: tuple[str, ...] = ()  # E.g. the last layer of a shared encoder.
  objectives: tuple[str, ...] = ()
  alpha: float = 1.5  # How much harder; 0 = all equally.

  def __post_init__(self):
    if not self.shared:
      raise errors.UserError(
        "shared=(), expected patterns of the parameters at which gradients "
        "are compared, e.g. ('encoders_text/.*',)."
      )
    if not self.alpha >= 0.0:
      raise errors.UserError(f"alpha={self.alpha}, expected >= 0.")

  def init(self, names):
    zeros = {n: jnp.zeros((), jnp.float32) for n in names}
    # 0 = the objective was not met yet.
    return {"log_weight": zeros}, {"initial": dict(zeros)}

  def factors(self, params):
    logits = params["log_weight"]
    names = list(logits)
    factors = len(names) * jax.nn.softmax(jnp.stack([logits[n] for n in names]))
    return {n: factors[i] for i, n in enumerate(names)}

  def learn(self, params, memory, signals):
    names = list(params["log_weight"])
    losses = jnp.stack([signals.terms[n].mean for n in names])
    norms = jnp.stack([signals.norms[n] for n in names])
    initial = jnp.stack([memory["initial"][n] for n in names])
    initial = jnp.where(initial > 0.0, initial, losses)
    counts = norms > 0.0  # Others say nothing in this step.
    speed = jnp.where(counts & (initial > 0.0), losses / initial, 1.0)
    speed = speed / _mean(speed, counts)  # The paper's r, 1 on average.

    def imbalance(logits):
      factors = self.factors({"log_weight": logits})
      pulls = jnp.stack([factors[n] for n in names]) * norms
      target = _mean(pulls, counts) * jnp.maximum(speed, 0.0) ** self.alpha
      gaps = jnp.abs(pulls - jax.lax.stop_gradient(target))
      return jnp.sum(jnp.where(counts, gaps, 0.0))

    grads = jax.grad(imbalance)(dict(params["log_weight"]))
    new = {n: initial[i] for i, n in enumerate(names)}
    return {"log_weight": grads}, {"initial": new}


def _mean(values, mask):
  total = jnp.sum(jnp.where(mask, values, 0.0))
  return total / jnp.maximum(jnp.sum(mask), 1)
