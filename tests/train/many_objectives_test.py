"""Steps of several tasks and of weights that change, by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax.core import trees
from mmjax.core.interfaces import LossTerm
from mmjax.core.piecewise import Piecewise
from mmjax.objectives import weighting
from mmjax.objectives.multitask import WeightedObjective
from mmjax.train import optimizer as optimizer_lib
from mmjax.train import state as state_lib
from mmjax.train import step as step_lib
from mmjax.train import variables as variables_lib

LR = 0.1
TRACED = []


class Model(nn.Module):
  """A shared vector, and a number for each objective."""

  @nn.compact
  def output(self, name, x):
    tower = self.param("tower", nn.initializers.normal(1.0), (3,))
    scale = self.param(f"scale_{name}", nn.initializers.constant(0.7), ())
    return scale * (x @ tower)


@dataclasses.dataclass(frozen=True)
class Squared:
  """Mean of (output - y)^2."""

  name: str

  def __call__(self, apply, batch, *, rng, train):
    del rng, train
    TRACED.append(self.name)
    error = apply("output", self.name, batch["x"]) - batch["y"]
    return LossTerm(jnp.sum(error**2), jnp.float32(error.size)), {}

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


@pytest.fixture
def batches(rng):
  return {
    task: {
      "x": rng.normal(size=(8, 3)).astype(np.float32),
      "y": rng.normal(size=8).astype(np.float32),
    }
    for task in ("one", "two")
  }


def start(batches, *, weights=(2.0, 0.5), optimizer=None, learned=None, **more):
  """A state, and the step of objective `a` on task one, `b` on task two."""
  objectives = {
    name: WeightedObjective(task, Squared(name), weight)
    for name, task, weight in zip("ab", ("one", "two"), weights, strict=True)
  }
  made = learned or weighting.CONSTANT
  optimizer = optimizer or optax.sgd(LR)
  variables = variables_lib.initialize(
    Model(),
    objectives,
    jax.tree.map(jnp.asarray, batches),
    jax.random.key(1),
    made,
  )
  names = trees.flatten(variables["params"])
  step = step_lib.TrainStep(
    Model(), objectives, optimizer, dict.fromkeys(names, True),
    weighting=made, **more,
  )  # fmt: skip
  state = state_lib.create(
    variables,
    optimizer=optimizer,
    trainable=step.trainable,
    ema=False,
    rng=jax.random.key(2),
  )
  return state, step


def numbers(params):
  return {
    n: np.asarray(x, np.float64) for n, x in trees.flatten(params).items()
  }


def by_hand(params, batch, name):
  """Loss of one objective, and its gradient by tower and by scale."""
  p = numbers(params)
  tower, scale = p["tower"], p[f"scale_{name}"]
  x, y = batch["x"].astype(np.float64), batch["y"].astype(np.float64)
  error = scale * (x @ tower) - y
  d = 2 * error / len(y)
  return (error**2).mean(), scale * (x.T @ d), d @ (x @ tower)


RAMP = Piecewise(kind="linear", points=((0, 0.0), (4, 2.0)))
DROP = Piecewise(kind="steps", points=((0, 1.0), (2, 0.25)))


def test_weights_follow_their_schedules(batches):
  state, step = start(batches, weights=(RAMP, DROP))
  compiled = jax.jit(step)

  for a, b in [(0.0, 1.0), (0.5, 1.0), (1.0, 0.25), (1.5, 0.25)]:
    new, metrics = compiled(state, batches)
    loss_a, tower_a, scale_a = by_hand(state.params, batches["one"], "a")
    loss_b, tower_b, _ = by_hand(state.params, batches["two"], "b")
    old, got = numbers(state.params), numbers(new.params)
    expected = old["tower"] - LR * (a * tower_a + b * tower_b)
    np.testing.assert_allclose(got["tower"], expected, rtol=1e-5, atol=1e-6)
    assert got["scale_a"] == pytest.approx(old["scale_a"] - LR * a * scale_a)
    assert float(metrics["loss"].mean) == pytest.approx(
      a * loss_a + b * loss_b, rel=1e-5
    )
    assert float(metrics["a/weight"].mean) == pytest.approx(a)
    assert float(metrics["b/weight"].mean) == pytest.approx(b)
    state = new


def test_weights_that_never_change_are_not_logged(batches):
  state, step = start(batches, weights=(2.0, DROP))

  _, metrics = jax.jit(step)(state, batches)

  assert "a/weight" not in metrics and "b/weight" in metrics


def test_steps_of_one_task_are_compiled_once_each_and_keep_the_tree(batches):
  state, step = start(batches, optimizer=optax.adamw(0.01))
  compiled, before = jax.jit(step), jax.tree.structure(state)
  TRACED.clear()

  for task in ("one", "two", "two", "one", "one", "two"):
    state, metrics = compiled(state, {task: batches[task]})
    losses = {n for n in metrics if n.endswith("/loss")}
    assert losses == {"a/loss" if task == "one" else "b/loss"}
    assert jax.tree.structure(state) == before

  assert TRACED == ["a", "b"]


def test_what_the_drawn_task_does_not_reach_has_a_gradient_of_zero(batches):
  # Plain AdamW: moments decay and the momentum goes on.
  state, step = start(batches, optimizer=optax.adamw(0.01, weight_decay=0.0))
  compiled = jax.jit(step)
  state, _ = compiled(state, batches)

  new, _ = compiled(state, {"one": batches["one"]})

  (old,), (got,) = (
    [x for x in s.opt_state if isinstance(x, optax.ScaleByAdamState)]
    for s in (state, new)
  )
  assert float(got.mu["scale_b"]) == pytest.approx(
    0.9 * float(old.mu["scale_b"])
  )
  assert float(got.nu["scale_b"]) == pytest.approx(
    0.999 * float(old.nu["scale_b"]), rel=1e-5
  )
  assert float(new.params["scale_b"]) != float(state.params["scale_b"])


@pytest.mark.parametrize("accumulate", [1, 4])
def test_uncertainty_scales_the_model_and_learns(batches, accumulate):
  state, step = start(
    batches, learned=weighting.Uncertainty(), accumulate=accumulate
  )
  s = {"a": jnp.float32(0.4), "b": jnp.float32(-0.3)}
  params = {**state.params, "loss_weights": {"log_variance": s}}
  state = state.replace(params=params)

  new, metrics = jax.jit(step)(state, batches)

  tower = numbers(state.params)["tower"]
  for name, task, weight in (("a", "one", 2.0), ("b", "two", 0.5)):
    loss, pull, _ = by_hand(state.params, batches[task], name)
    scale = weight * np.exp(-float(s[name]))
    tower = tower - LR * scale * pull
    slope = weight * (0.5 - np.exp(-float(s[name])) * loss)
    got = float(new.params["loss_weights"]["log_variance"][name])
    assert got == pytest.approx(float(s[name]) - LR * slope, rel=1e-4)
    assert float(metrics[f"{name}/weight"].mean) == pytest.approx(scale)
  got = numbers(new.params)["tower"]
  np.testing.assert_allclose(got, tower, rtol=1e-4, atol=1e-6)


def test_norm_that_is_logged_is_the_models(batches):
  state, plain = start(batches)
  learning, step = start(batches, learned=weighting.Uncertainty())

  _, expected = jax.jit(plain)(state, batches)
  _, metrics = jax.jit(step)(learning, batches)

  np.testing.assert_allclose(
    metrics["grad_norm"].mean, expected["grad_norm"].mean, rtol=1e-5
  )


def test_clipping_leaves_learned_weights_out(batches):
  settings = optimizer_lib.OptimizerSettings(clip_norm=0.5)
  grads = {"loss_weights": {"a": jnp.float32(50.0)}, "x": jnp.full(4, 2.0)}
  opt = optimizer_lib.make_optimizer(settings, 10, ["loss_weights/a", "x"])

  _, state = opt.update(grads, opt.init(grads), grads)

  (moments,) = [x for x in state if isinstance(x, optax.ScaleByAdamState)]
  np.testing.assert_allclose(moments.mu["x"], 0.1 * 0.25, rtol=1e-5)
  np.testing.assert_allclose(moments.mu["loss_weights"]["a"], 0.1 * 50.0)


def grad_norm():
  return weighting.GradNorm(shared=("tower",), alpha=0.0)


def test_grad_norm_compares_gradients_by_the_shared_parameters(batches):
  state, step = start(batches, learned=grad_norm())

  new, _ = jax.jit(step)(state, batches)

  loss_a, tower_a, _ = by_hand(state.params, batches["one"], "a")
  loss_b, tower_b, _ = by_hand(state.params, batches["two"], "b")
  pulls = np.array(
    [2.0 * np.linalg.norm(tower_a), 0.5 * np.linalg.norm(tower_b)]
  )
  # d|G_i - mean| by z, with w = 2 softmax(z) = 1 both: dw_i/dz_i = 1/2.
  signs = np.sign(pulls - pulls.mean())
  slope = 0.5 * (signs[0] * pulls[0] - signs[1] * pulls[1])
  got = {
    n: float(z) for n, z in new.params["loss_weights"]["log_weight"].items()
  }
  assert got["a"] == pytest.approx(-LR * slope, rel=1e-4)
  assert got["b"] == pytest.approx(LR * slope, rel=1e-4)
  initial = new.collections["loss_weights"]["initial"]
  assert float(initial["a"]) == pytest.approx(loss_a, rel=1e-5)
  assert float(initial["b"]) == pytest.approx(loss_b, rel=1e-5)


def test_grad_norm_balances_pulls_while_the_model_stands(batches):
  # The model's rate is 0: only the weights learn.
  rates = optax.partition(
    {"weights": optax.adam(0.05), "model": optax.sgd(0.0)},
    lambda params: trees.map_names(
      lambda n, _: "weights" if n.startswith("loss_weights/") else "model",
      params,
    ),
  )
  state, step = start(batches, learned=grad_norm(), optimizer=rates)
  compiled = jax.jit(step)

  for _ in range(150):
    state, metrics = compiled(state, batches)

  weights = {n: float(metrics[f"{n}/weight"].mean) for n in "ab"}
  _, tower_a, _ = by_hand(state.params, batches["one"], "a")
  _, tower_b, _ = by_hand(state.params, batches["two"], "b")
  a, b = (
    weights["a"] * np.linalg.norm(tower_a),
    weights["b"] * np.linalg.norm(tower_b),
  )
  assert a == pytest.approx(b, rel=0.1)
  assert weights["a"] / 2.0 + weights["b"] / 0.5 == pytest.approx(2.0)


def test_step_without_a_finite_gradient_leaves_weights_alone(batches):
  state, step = start(batches, learned=grad_norm())
  batches["one"]["x"] = np.full_like(batches["one"]["x"], np.nan)

  new, metrics = jax.jit(step)(state, batches)

  assert float(metrics["skipped"].mean) == 1.0
  for old, got in zip(
    jax.tree.leaves((state.params, state.collections)),
    jax.tree.leaves((new.params, new.collections)),
    strict=True,
  ):
    np.testing.assert_array_equal(old, got)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_conflict_is_that_of_gradients_by_hand(batches, accumulate):
  state, step = start(batches, accumulate=accumulate)

  got = jax.jit(step.conflict)(state, batches)

  # Example i belongs to micro-batch i % accumulate; the first is measured.
  one, two = (
    {k: v[::accumulate] for k, v in batches[t].items()} for t in ("one", "two")
  )
  _, tower_a, scale_a = by_hand(state.params, one, "a")
  _, tower_b, scale_b = by_hand(state.params, two, "b")
  cosine = tower_a @ tower_b / np.linalg.norm(tower_a) / np.linalg.norm(tower_b)
  expected = {
    "grad_norm/a": 2.0 * np.hypot(np.linalg.norm(tower_a), scale_a),
    "grad_norm/b": 0.5 * np.hypot(np.linalg.norm(tower_b), scale_b),
    "grad_cosine/a/b": cosine,
  }
  assert {n: float(t.mean) for n, t in got.items()} == pytest.approx(
    expected, rel=1e-4
  )


def test_conflict_of_a_step_of_one_task_has_no_pair(batches):
  state, step = start(batches)

  got = jax.jit(step.conflict)(state, {"two": batches["two"]})

  assert set(got) == {"grad_norm/b"}
