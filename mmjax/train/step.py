"""One optimizer step, as a pure function of (state, batches)."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from mmjax.core import errors, trees
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import multitask
from mmjax.train.optimizer import update_ema
from mmjax.train.state import TrainState

RNG_STREAMS = ("dropout", "drop_path", "mask", "codebook")
MUTABLE = ("codebook",)  # Collections that training may change.

Batches = Mapping[str, Mapping[str, jax.Array]]  # Task -> field -> array.


class ModelCall:
  """Calls methods of a model with given variables, keeping what they change.

  Each call has random streams of its own, derived from the step's key and the
  name of the call: so an objective more changes nothing for the others.
  `averaged` are the parameters that compute `by="ema"`; None = the same.
  """

  def __init__(
    self,
    model: nn.Module,
    variables: Mapping[str, Any],
    rng: jax.Array,
    *,
    train: bool,
    averaged: Mapping[str, Any] | None = None,
  ):
    self._model = model
    self._variables = dict(variables)
    self._rng = rng
    self._train = train
    self._averaged = averaged

  def __call__(
    self,
    method: str,
    *args: Any,
    key: str,
    by: str = "model",
    **kwargs: Any,
  ) -> Any:
    if by != "model":
      return self._target(method, *args, by=by, **kwargs)
    rngs = {
      stream: jax.random.fold_in(
        self._rng, zlib.crc32(f"{stream}/{key}".encode())
      )
      for stream in RNG_STREAMS
    }
    mutable = [
      name for name in MUTABLE if self._train and name in self._variables
    ]
    out = self._model.apply(
      self._variables,
      *args,
      method=method,
      rngs=rngs,
      mutable=mutable or False,
      **kwargs,
    )
    if mutable:
      out, changed = out
      self._variables.update(changed)
    return out

  def _target(self, method, *args, by, **kwargs):
    """What another computes, as in evaluation."""
    variables = self._variables
    if by == "teacher":
      args, method = (method, *args), "teach"
    elif self._averaged is not None:
      variables = {**variables, "params": self._averaged}
    return self._model.apply(variables, *args, method=method, **kwargs)

  @property
  def collections(self) -> dict[str, Any]:
    """All but the parameters, as the calls left them."""
    return {k: v for k, v in self._variables.items() if k != "params"}


class Fixed(NamedTuple):
  """Parameters that a step does not differentiate by."""

  frozen: Any  # Those of the model that are not trained.
  averaged: Any  # All, trained ones as the moving average has them, or None.


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

  def __call__(
    self, state: TrainState, batches: Batches
  ) -> tuple[TrainState, dict[str, LossTerm]]:
    rng = jax.random.fold_in(state.rng, state.step)
    trained, frozen = trees.split(state.params, self.trainable)
    averaged = None if state.ema is None else trees.merge(state.ema, frozen)
    fixed = Fixed(frozen, averaged)
    grads, terms, metrics, collections = self._gradient(
      trained, fixed, state.collections, batches, rng
    )
    updates, opt_state = self.optimizer.update(grads, state.opt_state, trained)
    norm = optax.tree.norm(grads)
    new_trained = optax.apply_updates(trained, updates)
    ema = state.ema
    if self.ema_decay:
      ema = update_ema(state.ema, new_trained, self.ema_decay)
    new = state.replace(
      params=trees.merge(new_trained, frozen),
      opt_state=opt_state,
      collections=collections,
      ema=ema,
    )
    finite = jnp.isfinite(norm)
    state = jax.tree.map(
      lambda a, b: a if a is b else jnp.where(finite, a, b), new, state
    )
    state = state.replace(step=state.step + 1)
    log = {
      "loss": _scalar(
        multitask.weighted_sum(
          self.objectives, terms, {k: t.weight for k, t in terms.items()}
        )
      ),
      "grad_norm": _scalar(norm),
      "skipped": _scalar(~finite),
    }
    log.update({f"{name}/loss": term for name, term in terms.items()})
    return state, log | metrics

  def _gradient(self, trained, fixed, collections, batches, rng):
    """Gradient of the weighted sum of means over the whole batch."""
    if self.accumulate == 1:
      return self._micro_gradient(
        trained, fixed, collections, batches, rng, None
      )
    micro = jax.tree.map(self._split, batches)
    keys = jax.random.split(rng, self.accumulate)

    # What to divide by depends on the whole batch but on no parameter: XLA
    # drops all of this pass that does not lead to the weights.
    def weigh(item):
      batch, key = item
      terms, _, _ = self._forward(trained, fixed, collections, batch, key)
      return {name: term.weight for name, term in terms.items()}

    weights = jax.tree.map(
      lambda w: jnp.sum(w, axis=0), jax.lax.map(weigh, (micro, keys))
    )

    def body(carry, item):
      sums, collections = carry
      batch, key = item
      *new, collections = self._micro_gradient(
        trained, fixed, collections, batch, key, weights
      )
      return (jax.tree.map(jnp.add, sums, new), collections), None

    first = jax.eval_shape(
      lambda: self._micro_gradient(
        trained,
        fixed,
        collections,
        jax.tree.map(lambda x: x[0], micro),
        keys[0],
        weights,
      )[:3]
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), list(first))
    (sums, collections), _ = jax.lax.scan(
      body, (zeros, collections), (micro, keys)
    )
    return *sums, collections

  def _micro_gradient(self, trained, fixed, collections, batch, rng, weights):
    def loss_fn(trained):
      terms, metrics, changed = self._forward(
        trained, fixed, collections, batch, rng
      )
      divide_by = weights or {k: t.weight for k, t in terms.items()}
      loss = multitask.weighted_sum(self.objectives, terms, divide_by)
      return loss, (terms, metrics, changed)

    grads, (terms, metrics, changed) = jax.grad(loss_fn, has_aux=True)(trained)
    return grads, terms, metrics, changed

  def _forward(self, trained, fixed, collections, batch, rng):
    params = trees.merge(trained, fixed.frozen)
    call = ModelCall(
      self.model,
      {"params": params, **collections},
      rng,
      train=True,
      averaged=fixed.averaged,
    )
    terms, metrics = multitask.forward(
      self.objectives, call, batch, rng, train=True
    )
    return terms, metrics, call.collections

  def _split(self, x):
    # Example i goes to micro-batch i % accumulate: each device keeps its own.
    x = x.reshape(x.shape[0] // self.accumulate, self.accumulate, *x.shape[1:])
    return jnp.swapaxes(x, 0, 1)  # accumulate b ...


def _scalar(value) -> LossTerm:
  return LossTerm(jnp.asarray(value, jnp.float32), jnp.ones((), jnp.float32))


def _pictures(batches):
  """Pictures of any task, or the first frames of clips."""
  for batch in batches.values():
    if "image" in batch:
      return batch["image"]
    if "video" in batch:
      return batch["video"][:, 0]
  raise errors.UserError(
    "The model has a visual tokenizer, but no task has pictures or clips."
  )


def initialize(
  model: nn.Module,
  objectives: multitask.Objectives,
  batches: Batches,
  rng: jax.Array,
) -> dict[str, Any]:
  """Variables of the model: what the objectives call gets parameters.

  Kernels are boxed with their logical axes (`nn.meta.unbox` takes them out).
  """

  def run(module):
    def call(
      method: str, *args: Any, key: str, by: str = "model", **kwargs: Any
    ) -> Any:
      del key
      if by == "teacher":
        return module.teach(method, *args, **kwargs)
      return getattr(module, method)(*args, **kwargs)

    multitask.forward(objectives, call, batches, rng, train=True)
    if getattr(module, "visual_tokenizer", None) is not None:
      # The decoder too, although a pretraining step only asks for codes.
      module.reconstruct(_pictures(batches), train=True)

  keys = jax.random.split(rng, 1 + len(RNG_STREAMS))
  rngs = dict(zip(("params", *RNG_STREAMS), keys, strict=True))
  return dict(model.init(rngs, method=run))
