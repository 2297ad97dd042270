import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from mmjax.core import errors, trees
from mmjax.train import optimizer
from mmjax.train.optimizer import OptimizerSettings

STEPS = 6
NAMES = ["tower/kernel", "tower/bias", "text/tokens/table", "norm/scale"]
DECAYED = {"tower/kernel", "text/tokens/table"}


def tree(rng, scale=1.0):
  shapes = [(3, 4), (4,), (5, 2), (3,)]
  return {
    name: (scale * rng.normal(size=shape)).astype(np.float32)
    for name, shape in zip(NAMES, shapes, strict=True)
  }


def by_hand(params, gradients, settings, lr, factors=None):
  """AdamW in float64, one array at a time."""
  params = {n: p.astype(np.float64) for n, p in params.items()}
  first = {n: np.zeros_like(p) for n, p in params.items()}
  second = {n: np.zeros_like(p) for n, p in params.items()}
  for t, grads in enumerate(gradients, start=1):
    norm = math.sqrt(
      sum((g.astype(np.float64) ** 2).sum() for g in grads.values())
    )
    clip = settings.clip_norm
    shrink = clip / norm if clip and norm > clip else 1.0
    for name, p in params.items():
      g = shrink * grads[name].astype(np.float64)
      first[name] = settings.b1 * first[name] + (1 - settings.b1) * g
      second[name] = settings.b2 * second[name] + (1 - settings.b2) * g**2
      m = first[name] / (1 - settings.b1**t)
      v = second[name] / (1 - settings.b2**t)
      change = m / (np.sqrt(v) + settings.epsilon)
      if name in DECAYED:
        change = change + settings.weight_decay * p
      params[name] = p - lr(t - 1) * (factors or {}).get(name, 1.0) * change
  return params


def run(params, gradients, settings):
  made = optimizer.make_optimizer(settings, STEPS, NAMES)
  params = trees.unflatten(params)
  state = made.init(params)
  for grads in gradients:
    updates, state = made.update(trees.unflatten(grads), state, params)
    params = optax.apply_updates(params, updates)
  return trees.flatten(params)


def constant(**kwargs):
  return OptimizerSettings(
    peak_lr=0.1, schedule="constant", weight_decay=0.3, **kwargs
  )


def assert_close(got, expected):
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    # Moments of float32 pass a root and a division: 1e-5 of the numbers' size.
    np.testing.assert_allclose(
      got[name], value, rtol=1e-5, atol=1e-6, err_msg=name
    )


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 1e6])
def test_updates_are_those_of_adamw_by_hand(rng, clip_norm):
  params = tree(rng)
  gradients = [tree(rng, 3.0) for _ in range(STEPS)]
  settings = constant(clip_norm=clip_norm)

  got = run(params, gradients, settings)

  assert_close(got, by_hand(params, gradients, settings, lambda _: 0.1))


def test_schedule_gives_the_rate_of_each_step(rng):
  params, gradients = tree(rng), [tree(rng) for _ in range(STEPS)]
  settings = OptimizerSettings(peak_lr=0.1, warmup_steps=2, schedule="cosine")

  def lr(step):
    done = max(step - 2, 0) / (STEPS - 2)
    return 0.1 * min(1, (step + 1) / 2) * (1 + math.cos(math.pi * done)) / 2

  got = run(params, gradients, settings)

  assert_close(got, by_hand(params, gradients, settings, lr))


def test_lr_factors_scale_update_and_decay_by_the_first_match(rng):
  params, gradients = tree(rng), [tree(rng) for _ in range(STEPS)]
  settings = constant(lr_factors=(("tower/bias", 2.0), ("tower/.*", 0.5)))
  factors = {"tower/kernel": 0.5, "tower/bias": 2.0}

  got = run(params, gradients, settings)

  expected = by_hand(params, gradients, settings, lambda _: 0.1, factors)
  assert_close(got, expected)


def test_lr_factor_that_matches_nothing_is_refused():
  with pytest.raises(errors.UserError, match="'towers/.*' matches none"):
    optimizer.make_optimizer(
      constant(lr_factors=(("towers/.*", 0.5),)), STEPS, NAMES
    )


def test_decay_alone_shrinks_matrices_and_token_tables_only(rng):
  params = tree(rng)
  zeros = {name: np.zeros_like(p) for name, p in params.items()}

  got = run(params, [zeros], constant())

  for name, p in params.items():
    factor = 1 - 0.1 * 0.3 if name in DECAYED else 1.0
    np.testing.assert_allclose(got[name], p * factor, rtol=1e-6)


def test_table_of_positions_does_not_decay():
  made = optimizer.make_optimizer(constant(), STEPS, ["positions/table"])
  params = {"positions": {"table": jnp.ones((2, 2))}}
  zeros = jax.tree.map(jnp.zeros_like, params)

  updates, _ = made.update(zeros, made.init(params), params)

  np.testing.assert_array_equal(updates["positions"]["table"], 0.0)


def test_run_shorter_than_its_warmup_ends_within_it():
  settings = constant(warmup_steps=10)

  optimizer.make_optimizer(settings, 5, NAMES)
  rate = optimizer.learning_rate(settings, 5)

  assert float(rate(4)) == pytest.approx(0.1 * 5 / 10)


def test_average_of_parameters_is_exponential(rng):
  values = [tree(rng) for _ in range(4)]
  ema = values[0]

  for params in values[1:]:
    ema = optimizer.update_ema(ema, params, 0.9)

  weights = [0.9**3, 0.1 * 0.9**2, 0.1 * 0.9, 0.1]
  for name in NAMES:
    expected = sum(w * v[name] for w, v in zip(weights, values, strict=True))
    np.testing.assert_allclose(ema[name], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  "wrong", [dict(peak_lr=0.0), dict(peak_lr=-1.0), dict(ema_decay=1.0)]
)
def test_wrong_settings_are_refused(wrong):
  (name,) = wrong

  with pytest.raises(errors.UserError, match=name):
    OptimizerSettings(**wrong)


def run_with(params, gradients, settings, **kwargs):
  """The parameters after each update."""
  made = optimizer.make_optimizer(settings, STEPS, NAMES, **kwargs)
  params = trees.unflatten(params)
  state = made.init(params)
  traced, history = [], []

  @jax.jit
  def update(*args):
    traced.append(args)
    return made.update(*args)

  for grads in gradients:
    updates, state = update(trees.unflatten(grads), state, params)
    params = optax.apply_updates(params, updates)
    history.append(trees.flatten(params))
  assert len(traced) == 1  # Not compiled again.
  return history


def test_given_factors_scale_whole_arrays_and_stacked_layers(rng):
  params, gradients = tree(rng), [tree(rng) for _ in range(STEPS)]
  settings = constant(lr_factors=(("tower/bias", 2.0),))
  factors = {"tower/kernel": (0.25, 0.5, 1.0), "tower/bias": 0.5}

  got = run_with(params, gradients, settings, factors=factors)[-1]

  by_row = {
    "tower/kernel": np.array([[0.25], [0.5], [1.0]]),
    "tower/bias": 2.0 * 0.5,
  }
  assert_close(got, by_hand(params, gradients, settings, lambda _: 0.1, by_row))


def test_a_parameter_joins_after_exactly_its_number_of_steps(rng):
  params, gradients = tree(rng), [tree(rng) for _ in range(STEPS)]
  starts = {"tower/kernel": 2, "norm/scale": 4}

  history = run_with(params, gradients, constant(), starts=starts)

  for name in NAMES:
    start = starts.get(name, 0)
    values = [params[name], *(after[name] for after in history)]
    for step, (before, after) in enumerate(itertools.pairwise(values)):
      # Weight decay neither: the same bits.
      assert np.array_equal(before, after) == (step < start), (name, step)


def test_before_it_joins_a_parameter_counts_as_one_without_gradient(rng):
  params, gradients = tree(rng), [tree(rng, 3.0) for _ in range(STEPS)]
  start, settings = 3, constant(clip_norm=1.0)
  zeroed = [
    g if step >= start else g | {"norm/scale": np.zeros(3, np.float32)}
    for step, g in enumerate(gradients)
  ]

  got = run_with(params, gradients, settings, starts={"norm/scale": start})[-1]

  # norm/scale has no decay, so by hand a gradient of zero is no update.
  assert_close(got, by_hand(params, zeroed, settings, lambda _: 0.1))
