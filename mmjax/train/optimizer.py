"""The optimizer: clip, AdamW, decay mask, learning rate per pattern."""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mmjax.core import errors, trees
from mmjax.objectives import weighting
from mmjax.train import schedules

Factor = float | tuple[float, ...]
NOTHING: Mapping[str, Any] = types.MappingProxyType({})


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
  """AdamW (Loshchilov & Hutter 2019) and what stands around it."""

  peak_lr: float = 1e-3
  warmup_steps: int = 0  # Optimizer steps.
  schedule: str = "cosine"  # See `schedules`.
  end_factor: float = 0.0  # Of the peak, for "cosine".
  weight_decay: float = 0.05
  # Names of parameters that decay: matrices, not biases, norms or tables of
  # positions.
  decay: tuple[str, ...] = (".*/kernel", ".*/tokens/table")
  b1: float = 0.9
  b2: float = 0.95
  epsilon: float = 1e-8
  clip_norm: float = 1.0  # Of the gradient of all parameters; 0 = off.
  # (pattern, factor on the learning rate); the first that matches counts.
  lr_factors: tuple[tuple[str, float], ...] = ()
  ema_decay: float = 0.0  # Of the moving average of parameters; 0 = none.

  def __post_init__(self):
    if not self.peak_lr > 0:
      raise errors.UserError(f"peak_lr={self.peak_lr}, expected > 0.")
    if not 0 <= self.ema_decay < 1:
      raise errors.UserError(f"ema_decay={self.ema_decay}, expected [0, 1).")


def learning_rate(
  settings: OptimizerSettings, num_steps: int
) -> schedules.Schedule:
  """The schedule of a run; one shorter than its warm-up ends within it."""
  return schedules.schedule(
    settings.schedule,
    peak_lr=settings.peak_lr,
    warmup_steps=settings.warmup_steps,
    num_steps=max(num_steps, settings.warmup_steps),
    end_factor=settings.end_factor,
  )


def make_optimizer(
  settings: OptimizerSettings,
  num_steps: int,
  names: list[str],
  *,
  factors: Mapping[str, Factor] = NOTHING,
  starts: Mapping[str, int] = NOTHING,
) -> optax.GradientTransformation:
  """The optax chain for the trained parameters called `names`.

  Args:
    settings: see there.
    num_steps: of the run.
    names: of the parameters.
    factors: on the learning rate, by name, besides those of the settings; a
      tuple has one for each of the stacked layers.
    starts: by name, how many steps are done before a parameter is trained.

  Raises:
    UserError: a pattern of `lr_factors` matches none of them.
  """
  decay_patterns = [trees.compile_pattern(p) for p in settings.decay]

  def decays(params: Any) -> Any:
    return trees.map_names(
      lambda n, _: any(p.fullmatch(n) for p in decay_patterns), params
    )

  chain = []
  if settings.clip_norm:
    chain.append(_clip(settings.clip_norm, names))
  chain += [
    optax.scale_by_adam(settings.b1, settings.b2, settings.epsilon),
    optax.add_decayed_weights(settings.weight_decay, mask=decays),
  ]
  for table in (_factors(dict(settings.lr_factors), names), factors):
    if table:
      chain.append(_scale_by_name(table))
  chain.append(optax.scale_by_learning_rate(learning_rate(settings, num_steps)))
  made = optax.chain(*chain)
  return _from_steps(made, starts) if starts else made


def _clip(norm: float, names: list[str]) -> optax.GradientTransformation:
  """Clips the gradient of the model; learned weights stand beside it.

  Theirs is as large as the losses: within the norm it would shrink the
  model's.
  """
  clip = optax.clip_by_global_norm(norm)
  beside = f"{weighting.PART}/"
  if not any(name.startswith(beside) for name in names):
    return clip
  return optax.masked(
    clip,
    lambda params: trees.map_names(
      lambda n, _: not n.startswith(beside), params
    ),
  )


def _factors(
  lr_factors: Mapping[str, float], names: list[str]
) -> dict[str, float]:
  factors: dict[str, float] = {}
  for pattern, factor in lr_factors.items():
    for name, hit in trees.match([pattern], names).items():
      if hit:
        factors.setdefault(name, factor)
  return factors


def _scale_by_name(
  factors: Mapping[str, Factor],
) -> optax.GradientTransformation:
  def scale(name, update):
    factor = factors.get(name, 1.0)
    if isinstance(factor, tuple):  # Layers come first: (l, 1, 1, ...).
      by_layer = jnp.asarray(factor, update.dtype)
      return update * jnp.expand_dims(by_layer, tuple(range(1, update.ndim)))
    return update * factor if factor != 1.0 else update

  def update(updates, params=None):
    del params
    return trees.map_names(scale, updates)

  return optax.stateless(update)


class FromSteps(NamedTuple):
  """State of an optimizer whose parameters join one after the other."""

  count: Any  # int32 scalar: updates made.
  inner: Any  # Of the optimizer itself.


def _from_steps(
  inner: optax.GradientTransformation, starts: Mapping[str, int]
) -> optax.GradientTransformation:
  """Parameters that have not joined have no gradient, update or decay.

  Decided within the step, which is compiled once. Their moments stay zero and
  the norm that is clipped leaves them out.
  """

  def joined(count, updates):
    return trees.map_names(
      lambda n, u: (
        jnp.where(count >= starts[n], u, jnp.zeros_like(u))
        if n in starts
        else u
      ),
      updates,
    )

  def init(params):
    return FromSteps(jnp.zeros((), jnp.int32), inner.init(params))

  def update(updates, state, params=None):
    updates, new = inner.update(
      joined(state.count, updates), state.inner, params
    )
    updates = joined(state.count, updates)  # Decay has no gradient.
    return updates, FromSteps(optax.safe_increment(state.count), new)

  return optax.GradientTransformation(init, update)


def update_ema(ema: Any, params: Any, decay: float) -> Any:
  """Ema <- decay * ema + (1 - decay) * params."""
  return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
