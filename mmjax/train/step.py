"""One optimizer step, as a pure function of (state, batches)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mmjax.core import trees
from mmjax.core.interfaces import LossTerm
from mmjax.core.piecewise import Piecewise
from mmjax.objectives import multitask
from mmjax.objectives import weighting as weighting_lib
from mmjax.train import conflict, grad_cache
from mmjax.train.model_call import ModelCall
from mmjax.train.optimizer import update_ema
from mmjax.train.state import TrainState

Batches = Mapping[str, Mapping[str, jax.Array]]  # Task -> field -> array.


class Fixed(NamedTuple):
  """What a step does not differentiate by."""

  frozen: Any  # Those of the model that are not trained.
  averaged: Any  # All, trained ones as the moving average has them, or None.
  scales: Mapping[str, jax.Array]  # How much each objective's mean counts.


@dataclasses.dataclass(frozen=True, eq=False)  # jit tells steps by identity.
class TrainStep:
  """`step(state, batches) -> (state, metrics)`, to be jitted by the caller.

  Metrics are `LossTerm`s over the whole batch. A step whose gradient is not
  finite changes nothing but the step number, and says so in `skipped`.
  """

  model: nn.Module
  objectives: multitask.Objectives
  optimizer: optax.GradientTransformation
  trainable: Mapping[str, bool]  # By parameter name.
  accumulate: int = 1  # Micro-batches a step.
  ema_decay: float = 0.0
  weighting: weighting_lib.Weighting = weighting_lib.CONSTANT

  def __call__(
    self, state: TrainState, batches: Batches
  ) -> tuple[TrainState, dict[str, LossTerm]]:
    trained, fixed, rng = self._prepare(state, batches)
    grads, terms, metrics, collections = self._gradient(
      trained, fixed, state.collections, batches, rng
    )
    norm = optax.tree.norm(grads)
    if weighting_lib.PART in state.params:
      norms = self._shared_norms(trained, fixed, state, batches, rng)
      signals = weighting_lib.Signals(
        terms, self._weights(state, batches), norms
      )
      grads, collections = self._learn_weights(
        grads, collections, state.params, signals
      )
    with jax.named_scope("optimizer"):  # So it is called in profiles.
      finite = jnp.isfinite(optax.tree.norm(grads))
      trained, opt_state, ema = self._update(
        finite, grads, (trained, state.opt_state, state.ema)
      )
      collections = jax.tree.map(
        lambda a, b: a if a is b else jnp.where(finite, a, b),
        collections,
        state.collections,
      )
    state = state.replace(
      step=state.step + 1,
      params=trees.merge(trained, fixed.frozen),
      opt_state=opt_state,
      collections=collections,
      ema=ema,
    )
    log = {
      "loss": _scalar(
        multitask.weighted_sum(
          fixed.scales, terms, {k: t.weight for k, t in terms.items()}
        )
      ),
      "grad_norm": _scalar(norm),
      "skipped": _scalar(~finite),
    }
    log.update({f"{name}/loss": term for name, term in terms.items()})
    log.update(self._changing_weights(state.params, fixed.scales))
    return state, log | metrics

  def _update(self, finite, grads, old):
    """What the optimizer makes of (parameters, its state, their average).

    Nothing, if the gradient is not finite. On CPUs that is a branch: chosen
    number by number, XLA first copies both moments, since it computes them
    twice, for themselves and for the parameters. On a GPU the host would wait
    for a branch.
    """

    @jax.jit  # So that both ways below trace it once.
    def update(grads, old):
      trained, opt_state, ema = old
      updates, opt_state = self.optimizer.update(grads, opt_state, trained)
      trained = optax.apply_updates(trained, updates)
      if self.ema_decay:
        ema = update_ema(ema, trained, self.ema_decay)
      return trained, opt_state, ema

    def choose(grads, old):
      return jax.tree.map(
        lambda a, b: jnp.where(finite, a, b), update(grads, old), old
      )

    def branch(grads, old):
      return jax.lax.cond(finite, update, lambda _, old: old, grads, old)

    return jax.lax.platform_dependent(grads, old, cpu=branch, default=choose)

  def conflict(
    self, state: TrainState, batches: Batches
  ) -> dict[str, LossTerm]:
    """How the gradients of the objectives of this step lie to each other.

    Each as it counts in the step, weight included; with micro-batches, of the
    first one. Holds all of them at once: a copy of the trained parameters per
    objective. See `conflict.metrics`.
    """
    trained, fixed, rng = self._prepare(state, batches)
    if self.accumulate > 1:
      batches = jax.tree.map(lambda x: self._split(x)[0], batches)
      rng = jax.random.split(rng, self.accumulate)[0]
    return conflict.metrics(
      self._gradients_apart(
        trained, fixed, state.collections, batches, rng, fixed.scales
      )
    )

  def _prepare(self, state, batches):
    """What is differentiated by, what is not, and the key of this step."""
    trained, frozen = trees.split(state.params, self.trainable)
    averaged = None if state.ema is None else trees.merge(state.ema, frozen)
    factors = self.weighting.factors(state.params.get(weighting_lib.PART, {}))
    scales = {
      name: weight * factors.get(name, 1.0)
      for name, weight in self._weights(state, batches).items()
    }
    rng = jax.random.fold_in(state.rng, state.step)
    return trained, Fixed(frozen, averaged, scales), rng

  def _weights(self, state, batches):
    """The config's weights of the objectives of this step."""
    objectives = multitask.of_tasks(self.objectives, batches)
    return multitask.weights_at(objectives, state.step)

  def _learn_weights(self, grads, collections, params, signals):
    """Puts the gradient of the objectives' factors in its place.

    The model's loss does not depend on them: what they learn from is only
    known of the whole batch.
    """
    found, memory = self.weighting.learn(
      params[weighting_lib.PART],
      collections.get(weighting_lib.PART, {}),
      signals,
    )
    flat = trees.flatten({weighting_lib.PART: found})
    grads = trees.map_names(lambda n, g: flat.get(n, g), grads)
    return grads, collections | ({weighting_lib.PART: memory} if memory else {})

  def _shared_norms(self, trained, fixed, state, batches, rng):
    """Gradient norms by the parameters that the weighting asks for."""
    if not self.weighting.shared:
      return {}
    names = list(trees.flatten(trained))
    matched = trees.match(self.weighting.shared, names)
    shared, rest = trees.split(trained, matched)
    fixed = fixed._replace(frozen=trees.merge(fixed.frozen, rest))
    learned = self.weighting.factors(state.params[weighting_lib.PART])
    weights = self._weights(state, batches)
    grads = self._gradients_apart(
      shared,
      fixed,
      state.collections,
      batches,
      rng,
      {name: weights[name] for name in learned},
    )
    return conflict.norms(grads)

  def _gradients_apart(
    self, trained, fixed, collections, batches, rng, weights
  ):
    """The gradient of weight * mean of each weighted objective alone."""

    def loss_of(name, trained):
      terms, _, _ = self._forward(trained, fixed, collections, batches, rng)
      return weights[name] * terms[name].mean

    return conflict.gradients(loss_of, list(weights), trained)

  def _changing_weights(self, params, scales):
    """What to log: the weights that the config alone does not say."""
    learned = self.weighting.factors(params.get(weighting_lib.PART, {}))
    return {
      f"{name}/weight": _scalar(scale)
      for name, scale in scales.items()
      if name in learned or isinstance(self.objectives[name].weight, Piecewise)
    }

  def _gradient(self, trained, fixed, collections, batches, rng):
    """Gradient of the weighted sum of means over the whole batch."""
    if self.accumulate == 1:
      return self._micro_gradient(
        trained, fixed, collections, batches, rng, None
      )
    micro = jax.tree.map(self._split, batches)
    keys = jax.random.split(rng, self.accumulate)
    objectives = multitask.of_tasks(self.objectives, batches)
    coupled = grad_cache.coupled(objectives)
    alone = {k: v for k, v in objectives.items() if k not in coupled}
    whole, by_features = self._coupled_gradient(
      coupled, trained, fixed, collections, batches, rng
    )
    # The gradients of their features hold the weights and divisions already.
    ones = {name: jnp.ones(()) for name in coupled}
    fixed = fixed._replace(scales={**fixed.scales, **ones})

    # What to divide by depends on the whole batch but on no parameter: XLA
    # drops all of this pass that does not lead to the weights.
    def weigh(item):
      batch, key = item
      terms, _, _ = self._forward(
        trained, fixed, collections, batch, key, alone
      )
      return {name: term.weight for name, term in terms.items()}

    weights = ones | jax.tree.map(
      lambda w: jnp.sum(w, axis=0), jax.lax.map(weigh, (micro, keys))
    )

    def micro_gradient(collections, item):
      batch, key, by_features = item
      objectives = {**alone, **grad_cache.carry_on(coupled, by_features)}
      return self._micro_gradient(
        trained, fixed, collections, batch, key, weights, objectives
      )

    def body(carry, item):
      sums, collections = carry
      *new, collections = micro_gradient(collections, item)
      return (jax.tree.map(jnp.add, sums, new), collections), None

    items = (micro, keys, by_features)
    first = jax.eval_shape(
      lambda: micro_gradient(collections, jax.tree.map(lambda x: x[0], items))[
        :3
      ]
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), list(first))
    (sums, collections), _ = jax.lax.scan(body, (zeros, collections), items)
    grads, terms, metrics = sums
    if coupled:
      grads = jax.tree.map(jnp.add, grads, whole[0])
      terms, metrics = {**terms, **whole[1]}, {**metrics, **whole[2]}
    return grads, terms, metrics, collections

  def _coupled_gradient(
    self, objectives, trained, fixed, collections, batches, rng
  ):
    """What couples the examples of the whole batch, see `grad_cache`.

    Returns:
      Its gradient but for what goes through the features, its terms and its
      metrics; and the gradient by the features, for each micro-batch.
    """
    if not objectives:
      return None, {}
    micro = jax.tree.map(self._split, batches)

    def collect(item):
      batch, key = item
      call = self._call(trained, fixed, collections, key)
      return grad_cache.collect(objectives, call, batch)

    features = jax.lax.map(
      collect, (micro, jax.random.split(rng, self.accumulate))
    )

    def loss_fn(trained, features):
      terms, metrics, _ = self._forward(
        trained,
        fixed,
        collections,
        batches,
        rng,
        grad_cache.from_features(objectives, features),
      )
      weights = {k: t.weight for k, t in terms.items()}
      loss = multitask.weighted_sum(fixed.scales, terms, weights)
      return loss, (terms, metrics)

    (grads, by_features), (terms, metrics) = jax.grad(
      loss_fn, argnums=(0, 1), has_aux=True
    )(trained, jax.tree.map(self._join, features))
    by_features = jax.tree.map(self._split, by_features)
    return (grads, terms, metrics), by_features

  def _micro_gradient(
    self,
    trained,
    fixed,
    collections,
    batch,
    rng,
    weights,
    objectives=None,
  ):
    def loss_fn(trained):
      terms, metrics, changed = self._forward(
        trained, fixed, collections, batch, rng, objectives
      )
      divide_by = weights or {k: t.weight for k, t in terms.items()}
      loss = multitask.weighted_sum(fixed.scales, terms, divide_by)
      return loss, (terms, metrics, changed)

    grads, (terms, metrics, changed) = jax.grad(loss_fn, has_aux=True)(trained)
    return grads, terms, metrics, changed

  def _forward(self, trained, fixed, collections, batch, rng, objectives=None):
    call = self._call(trained, fixed, collections, rng)
    objectives = self.objectives if objectives is None else objectives
    terms, metrics = multitask.forward(objectives, call, batch, rng, train=True)
    return terms, metrics, call.collections

  def _call(self, trained, fixed, collections, rng):
    return ModelCall(
      self.model,
      {"params": trees.merge(trained, fixed.frozen), **collections},
      rng,
      train=True,
      averaged=fixed.averaged,
    )

  def _split(self, x):
    # Example i goes to micro-batch i % accumulate: each device keeps its own.
    x = x.reshape(x.shape[0] // self.accumulate, self.accumulate, *x.shape[1:])
    return jnp.swapaxes(x, 0, 1)  # accumulate b ...

  def _join(self, x):
    # The inverse of `_split`.
    return jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:])


def _scalar(value) -> LossTerm:
  return LossTerm(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))
