"""One step, on a model small enough to be done by hand."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax.core import trees
from mmjax.core.interfaces import LossTerm
from mmjax.objectives.multitask import WeightedObjective
from mmjax.train import model_call
from mmjax.train import state as state_lib
from mmjax.train import step as step_lib
from mmjax.train import variables as variables_lib

LR = 0.1


class Model(nn.Module):
  """Two towers without biases, and a collection that training changes."""

  def setup(self):
    kernel = functools.partial(nn.Dense, use_bias=False)
    self.tower = kernel(3)
    self.outputs = {"a": kernel(1), "b": kernel(1)}
    self.dropout = nn.Dropout(0.5)
    self.seen = self.variable(
      "codebook", "seen", lambda: {"sum": jnp.zeros(()), "log": jnp.zeros(8)}
    )

  def output(self, name, x):
    return self.outputs[name](self.tower(x))[:, 0]

  def noisy(self, x, train):
    return self.dropout(x, deterministic=not train)

  def count(self, x, train):
    if train and not self.is_initializing():
      old = self.seen.value
      log = jnp.roll(old["log"], 1).at[0].set(jnp.sum(x))
      self.seen.value = {"sum": old["sum"] + jnp.sum(x), "log": log}
    return jnp.zeros(())


@dataclasses.dataclass(frozen=True)
class Squared:
  """Mean of (output - y)^2 over what `mask_field` says counts."""

  name: str
  mask_field: str
  method: str = "output"

  def __call__(self, apply, batch, *, rng, train):
    del rng
    if self.method == "count":
      apply("count", batch["x"], train)
    error = apply("output", self.name, batch["x"]) - batch["y"]
    mask = batch[self.mask_field].astype(jnp.float32)
    loss = LossTerm(jnp.sum(mask * error**2), jnp.sum(mask))
    return loss, {"error": LossTerm(jnp.sum(mask * error), jnp.sum(mask))}

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


@dataclasses.dataclass(frozen=True)
class Noise(Squared):
  """Depends on dropout alone; logs what was left of each number."""

  def __call__(self, apply, batch, *, rng, train):
    kept = apply("noisy", jnp.ones(8), train)
    weights = 2.0 ** jnp.arange(8)
    total = jnp.sum(jnp.where(kept > 0, weights, 0.0))
    zero = 0.0 * jnp.sum(apply("output", "a", batch["x"]))
    return LossTerm(total + zero, jnp.ones(())), {}


OBJECTIVES = {
  "first": WeightedObjective("main", Squared("a", "mask_a", "count"), 2.0),
  "second": WeightedObjective("main", Squared("b", "mask_b"), 0.5),
}
ALL = {"tower/kernel": True, "outputs_a/kernel": True, "outputs_b/kernel": True}


@pytest.fixture
def batches(rng):
  size = 8
  return {
    "main": {
      "x": rng.normal(size=(size, 4)).astype(np.float32),
      "y": rng.normal(size=size).astype(np.float32),
      # Ragged: the second micro-batch of four has nothing for `first`.
      "mask_a": np.array([1, 0, 1, 1, 1, 0, 0, 1], bool),
      "mask_b": np.array([0, 1, 0, 1, 1, 1, 1, 1], bool),
    }
  }


def initialize(batches, objectives=OBJECTIVES):
  return variables_lib.initialize(
    Model(),
    objectives,
    jax.tree.map(jnp.asarray, batches),
    jax.random.key(1),
  )


def start(
  batches,
  *,
  objectives=OBJECTIVES,
  optimizer=None,
  trainable=ALL,
  **kwargs,
):
  """A state with three towers, and the jitted step."""
  optimizer = optimizer or optax.sgd(LR)
  variables = initialize(batches)
  made = step_lib.TrainStep(Model(), objectives, optimizer, trainable, **kwargs)
  state = state_lib.create(
    variables,
    optimizer=optimizer,
    trainable=trainable,
    ema=bool(made.ema_decay),
    rng=jax.random.key(2),
  )
  return state, jax.jit(made)


def flat(state):
  """Everything that a step could change, as numpy."""
  numbers = state.replace(rng=jax.random.key_data(state.rng))
  return {n: np.asarray(x) for n, x in trees.flatten(numbers).items()}


def gradient_by_hand(params, batch):
  """Of 2 mean_a (x T a - y)^2 + mean_b (x T b - y)^2 / 2, in float64."""
  p = {n: np.asarray(x, np.float64) for n, x in trees.flatten(params).items()}
  x, y = batch["x"].astype(np.float64), batch["y"].astype(np.float64)
  tower = p["tower/kernel"]
  grads, loss = {"tower/kernel": np.zeros_like(tower)}, 0.0
  for name, weight in (("a", 2.0), ("b", 0.5)):
    out = p[f"outputs_{name}/kernel"]
    rows = batch[f"mask_{name}"]
    error = (x @ tower @ out)[:, 0] - y
    loss += weight * (error[rows] ** 2).mean()
    d = (weight * 2 * error * rows / rows.sum())[:, None]
    grads[f"outputs_{name}/kernel"] = (x @ tower).T @ d
    grads["tower/kernel"] += x.T @ (d @ out.T)
  return grads, loss


def test_sgd_steps_along_the_gradient_by_hand(batches):
  state, step = start(batches)

  new, _ = step(state, batches)

  grads, _ = gradient_by_hand(state.params, batches["main"])
  old, got = trees.flatten(state.params), trees.flatten(new.params)
  for name, grad in grads.items():
    np.testing.assert_allclose(
      got[name], old[name] - LR * grad, rtol=1e-5, atol=1e-6, err_msg=name
    )


def test_metrics_are_loss_and_norm_of_the_gradient(batches):
  state, step = start(batches)

  _, metrics = step(state, batches)

  grads, loss = gradient_by_hand(state.params, batches["main"])
  norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
  means = {name: float(term.mean) for name, term in metrics.items()}
  assert means["loss"] == pytest.approx(loss, rel=1e-5)
  assert means["grad_norm"] == pytest.approx(norm, rel=1e-5)
  assert means["skipped"] == 0.0


def test_metrics_of_objectives_say_how_much_counted(batches):
  state, step = start(batches)

  _, metrics = step(state, batches)

  weights = {n: float(t.weight) for n, t in metrics.items() if "/" in n}
  assert weights == {
    "first/loss": 5,
    "first/error": 5,
    "second/loss": 6,
    "second/error": 6,
  }


@pytest.mark.parametrize("accumulate", [2, 4, 8])
def test_micro_batches_are_one_large_batch(batches, accumulate):
  state, whole = start(batches, optimizer=optax.adam(0.01))
  _, parts = start(batches, optimizer=optax.adam(0.01), accumulate=accumulate)

  expected, expected_metrics = whole(state, batches)
  got, got_metrics = parts(state, batches)

  for name in ("params", "opt_state"):
    pairs = zip(
      jax.tree.leaves(getattr(got, name)),
      jax.tree.leaves(getattr(expected, name)),
      strict=True,
    )
    for a, b in pairs:
      np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-8)
  assert got_metrics.keys() == expected_metrics.keys()
  for name, term in expected_metrics.items():
    np.testing.assert_allclose(
      (got_metrics[name].total, got_metrics[name].weight),
      (term.total, term.weight),
      rtol=1e-5,
      err_msg=name,
    )


def test_micro_batches_take_every_nth_example_and_change_the_codebook_in_turn(
  batches,
):
  state, step = start(batches, accumulate=4)

  new, _ = step(state, batches)

  log = new.collections["codebook"]["seen"]["log"]
  x = batches["main"]["x"]
  expected = [x[i::4].sum() for i in (3, 2, 1, 0)]  # The newest first.
  np.testing.assert_allclose(log[:4], expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(log[4:], 0.0)


def test_collections_are_what_the_step_left(batches):
  state, step = start(batches)

  once, _ = step(state, batches)
  twice, _ = step(once, batches)

  np.testing.assert_allclose(
    twice.collections["codebook"]["seen"]["sum"],
    2 * batches["main"]["x"].sum(),
    rtol=1e-5,
  )


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_parameters_stay_bit_for_bit(batches, accumulate):
  trainable = {**ALL, "tower/kernel": False}
  optimizer = optax.adamw(0.1, weight_decay=0.5)
  state, step = start(
    batches,
    trainable=trainable,
    optimizer=optimizer,
    ema_decay=0.5,
    accumulate=accumulate,
  )
  before = flat(state)

  for _ in range(3):
    state, _ = step(state, batches)

  after = flat(state)
  assert (
    after["params/tower/kernel"].tobytes()
    == before["params/tower/kernel"].tobytes()
  )
  assert np.all(
    after["params/outputs_a/kernel"] != before["params/outputs_a/kernel"]
  )


def test_frozen_parameters_have_no_moments_and_no_average(batches):
  state, _ = start(
    batches,
    trainable={**ALL, "tower/kernel": False},
    optimizer=optax.adam(0.1),
    ema_decay=0.5,
  )

  names = [n for n in flat(state) if "tower" in n]
  assert names == ["params/tower/kernel"]


def test_gradient_of_what_is_trained_is_that_of_the_whole(batches):
  state, step = start(batches, trainable={**ALL, "tower/kernel": False})

  new, _ = step(state, batches)

  grads, _ = gradient_by_hand(state.params, batches["main"])
  old, got = trees.flatten(state.params), trees.flatten(new.params)
  name = "outputs_a/kernel"
  np.testing.assert_allclose(
    got[name], old[name] - LR * grads[name], rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_step_without_a_finite_gradient_changes_its_number_only(
  batches, bad, accumulate
):
  state, step = start(
    batches,
    optimizer=optax.adam(0.1),
    ema_decay=0.5,
    accumulate=accumulate,
  )
  state, _ = step(state, batches)  # Moments and codebook are not zero.
  before = flat(state)
  batches["main"]["x"] = batches["main"]["x"].copy()
  batches["main"]["x"][0, 0] = bad

  state, metrics = step(state, batches)

  after = flat(state)
  assert after.pop("step") == before.pop("step") + 1
  for name, value in before.items():
    np.testing.assert_array_equal(after[name], value, err_msg=name)
  assert float(metrics["skipped"].mean) == 1.0


def test_average_follows_the_parameters(batches):
  state, step = start(batches, ema_decay=0.75)
  expected = {n: np.asarray(x) for n, x in trees.flatten(state.params).items()}

  for _ in range(3):
    state, _ = step(state, batches)
    for name, x in trees.flatten(state.params).items():
      expected[name] = 0.75 * expected[name] + 0.25 * np.asarray(x)

  for name, x in trees.flatten(state.ema).items():
    np.testing.assert_allclose(x, expected[name], rtol=1e-5, atol=1e-7)


NOISE = {"noise": WeightedObjective("main", Noise("a", "mask_a"))}


def noise_of_steps(batches, num_steps, **kwargs):
  state, step = start(batches, **kwargs)
  drawn = []
  for _ in range(num_steps):
    state, metrics = step(state, batches)
    drawn.append(float(metrics["noise/loss"].total))
  return drawn


def test_dropout_differs_between_steps_and_not_between_runs(batches):
  first = noise_of_steps(batches, 4, objectives=NOISE)

  assert first == noise_of_steps(batches, 4, objectives=NOISE)
  assert len(set(first)) == 4


def test_one_objective_more_changes_no_randomness_of_another(batches):
  alone = noise_of_steps(batches, 3, objectives=NOISE)

  assert alone == noise_of_steps(batches, 3, objectives=OBJECTIVES | NOISE)


def test_calls_have_random_streams_of_their_own(batches):
  variables = initialize(batches)
  call = model_call.ModelCall(Model(), variables, jax.random.key(3), train=True)
  x = jnp.ones(64)

  a, again, b = (call("noisy", x, True, key=key) for key in ("a", "a", "b"))

  np.testing.assert_array_equal(a, again)
  assert np.any(np.asarray(a) != np.asarray(b))


def test_call_outside_of_training_changes_no_collection(batches):
  variables = initialize(batches)
  call = model_call.ModelCall(
    Model(), variables, jax.random.key(3), train=False
  )

  call("count", jnp.ones(3), False, key="count")

  assert float(call.collections["codebook"]["seen"]["sum"]) == 0.0


def test_only_what_objectives_call_gets_parameters(batches):
  objectives = {"second": OBJECTIVES["second"]}

  variables = initialize(batches, objectives)

  assert set(trees.flatten(variables["params"])) == {
    "tower/kernel",
    "outputs_b/kernel",
  }


class Student(nn.Module):
  """A factor of its own, and a teacher that has one too."""

  teacher: nn.Module | None = None

  @nn.compact
  def __call__(self, x, **kwargs):
    return x * self.param("factor", nn.initializers.ones, ())

  def teach(self, method, *args):
    return getattr(self.teacher, method)(*args)


def test_the_average_and_the_teacher_compute_with_their_own_parameters():
  params = {"factor": jnp.asarray(2.0), "teacher": {"factor": jnp.asarray(5.0)}}
  averaged = {**params, "factor": jnp.asarray(3.0)}
  call = model_call.ModelCall(
    Student(Student()),
    {"params": params},
    jax.random.key(0),
    train=True,
    averaged=averaged,
  )

  def value(**by):
    return float(call("__call__", jnp.asarray(1.0), key="x", **by))

  assert [value(), value(by="ema"), value(by="teacher")] == [2.0, 3.0, 5.0]


def test_without_an_average_the_parameters_stand_for_it():
  call = model_call.ModelCall(
    Student(),
    {"params": {"factor": jnp.asarray(2.0)}},
    jax.random.key(0),
    train=False,
  )

  assert float(call("__call__", jnp.asarray(1.0), key="x", by="ema")) == 2.0
