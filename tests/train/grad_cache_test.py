"""Objectives that couple examples, in micro-batches and as a whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from mmjax.core import trees
from mmjax.core.interfaces import CoupledObjective, LossTerm
from mmjax.core.sequence import Sequence
from mmjax.objectives.contrastive import Contrastive
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.objectives.multitask import WeightedObjective
from mmjax.train import grad_cache, model_call
from mmjax.train import state as state_lib
from mmjax.train import step as step_lib
from mmjax.train import variables as variables_lib

SIZE, LR, WEIGHT = 8, 0.5, 3.0


class Model(nn.Module):
  """Linear towers, a temperature and a head, all asked as in real models."""

  dropout_rate: float = 0.0

  def setup(self):
    self.towers = {m: nn.Dense(3, use_bias=False) for m in ("image", "text")}
    self.spread = self.param("spread", nn.initializers.ones, (3,))
    self.scale = self.param("scale", nn.initializers.constant(4.0), ())
    self.bias = self.param("bias", nn.initializers.constant(-2.0), ())
    self.heads = nn.Dense(1, use_bias=False)
    self.drop = nn.Dropout(self.dropout_rate)

  def encode(self, modality, inputs, *, train, **kwargs):
    x = self.drop(self.towers[modality](inputs), deterministic=not train)
    x = jnp.tanh(x)[:, None]  # One token.
    return Sequence(x, jnp.ones(x.shape[:2], bool))

  def project(self, modality, sequence):
    x = sequence.x[:, 0] * self.spread[None]
    return x / jnp.linalg.norm(x + 1e-3, axis=1, keepdims=True)

  def temperature(self):
    return {"scale": self.scale, "bias": self.bias}

  def head(self, name, x):
    return self.heads(x)[:, 0]


class Plain:
  """What objectives have to declare beside their loss."""

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


@dataclasses.dataclass(frozen=True)
class Regression(Plain):
  """Couples nothing, and reads the same encoder."""

  def __call__(self, apply, batch, *, rng, train):
    del rng, train
    error = apply("head", "value", apply("encode", "image").x[:, 0])
    error = error - batch["y"]
    mask = batch["example_mask"].astype(jnp.float32)
    return LossTerm(jnp.sum(mask * error**2), jnp.sum(mask)), {}


@dataclasses.dataclass(frozen=True)
class Spread(Plain):
  """A user's own: the variance of an encoder's features, as a tree."""

  couples_examples = True

  def __call__(self, apply, batch, *, rng, train):
    features = self.features(apply, batch)
    return self.from_features(features, apply, batch, rng=rng, train=train)

  def features(self, apply, batch):
    return {"x": apply("encode", "text").x[:, 0], "y": (batch["y"],)}

  def from_features(self, features, apply, batch, *, rng, train):
    x, y = features["x"], features["y"][0]
    distance = jnp.sum((x - jnp.mean(x, axis=0, keepdims=True)) ** 2)
    total = distance * jnp.mean(y**2) * apply("temperature")["scale"]
    return LossTerm(total, jnp.asarray(2.0)), {"total": LossTerm(total, 1.0)}


OBJECTIVES = {
  "nce": WeightedObjective("main", Contrastive(), WEIGHT),
  "sigmoid": WeightedObjective("main", Contrastive(loss="sigmoid", chunk=3)),
  "spread": WeightedObjective("main", Spread(), 0.5),
  "value": WeightedObjective("main", Regression(), 2.0),
}


@pytest.fixture
def batches(rng):
  def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  mask = jnp.asarray([1, 1, 0, 1, 1, 1, 1, 1], bool)
  main = {"image": draw(SIZE, 5), "text": draw(SIZE, 4), "y": draw(SIZE)}
  return {"main": {**main, "example_mask": mask}}


def start(batches, *, model=None, objectives=None, accumulate=1):
  """A state, and the step."""
  model, objectives = model or Model(), objectives or OBJECTIVES
  variables = variables_lib.initialize(
    Model(), OBJECTIVES, batches, jax.random.key(1)
  )
  trainable = dict.fromkeys(trees.flatten(variables["params"]), True)
  optimizer = optax.sgd(LR)
  made = step_lib.TrainStep(
    model, objectives, optimizer, trainable, accumulate=accumulate
  )
  state = state_lib.create(
    variables,
    optimizer=optimizer,
    trainable=trainable,
    ema=False,
    rng=jax.random.key(2),
  )
  return state, made


def gradient(state, new):
  """What a step of SGD went along."""
  return jax.tree.map(lambda a, b: (a - b) / LR, state.params, new.params)


def assert_close(got, expected):
  got, expected = trees.flatten(got), trees.flatten(expected)
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_allclose(
      got[name], value, rtol=1e-5, atol=2e-6, err_msg=name
    )


@pytest.mark.parametrize("accumulate", [2, 4])
def test_micro_batches_are_the_large_batch(batches, accumulate):
  state, whole = start(batches)
  _, parts = start(batches, accumulate=accumulate)

  expected, expected_metrics = jax.jit(whole)(state, batches)
  got, metrics = jax.jit(parts)(state, batches)

  found = gradient(state, expected)
  assert_close(gradient(state, got), found)
  for name in ("scale", "bias", "spread"):
    assert np.all(found[name] != 0), name
  assert metrics.keys() == expected_metrics.keys()
  for name, term in expected_metrics.items():
    np.testing.assert_allclose(
      (metrics[name].total, metrics[name].weight),
      (term.total, term.weight),
      rtol=1e-5,
      err_msg=name,
    )


def test_both_passes_drop_the_same(batches):
  objective = OBJECTIVES["nce"]
  model = Model(dropout_rate=0.5)
  state, step = start(
    batches, model=model, objectives={"nce": objective}, accumulate=2
  )
  rng = jax.random.fold_in(state.rng, state.step)
  keys = jax.random.split(rng, 2)
  batch = batches["main"]

  def loss(params):
    """Of the whole batch, whose features come in two halves."""
    parts = []
    for i in range(2):
      half = {name: x[i::2] for name, x in batch.items()}
      call = model_call.ModelCall(
        model, {"params": params}, keys[i], train=True
      )
      apply = ForwardOnce(call, half, train=True)
      parts.append(objective.objective.features(apply, half))
    both = [jnp.concatenate(z) for z in zip(*parts, strict=True)]
    at = np.argsort([*range(0, SIZE, 2), *range(1, SIZE, 2)])
    term, _ = objective.objective.from_features(
      [z[at] for z in both], apply, batch, rng=rng, train=True
    )
    return WEIGHT * term.mean

  new, _ = jax.jit(step)(state, batches)

  assert_close(gradient(state, new), jax.jit(jax.grad(loss))(state.params))


def test_encoders_run_on_micro_batches_only(batches):
  objectives = {k: v for k, v in OBJECTIVES.items() if k != "value"}
  state, step = start(batches, objectives=objectives, accumulate=4)

  text = str(jax.make_jaxpr(step)(state, batches))

  assert "f32[2,3] = tanh" in text
  assert "f32[8,3] = tanh" not in text


def test_who_can_take_part_is_known_before_the_first_step():
  assert isinstance(Contrastive(), CoupledObjective)
  assert isinstance(Spread(), CoupledObjective)
  fewer = WeightedObjective("main", Contrastive(negatives="micro_batch"))
  names = grad_cache.coupled({**OBJECTIVES, "fewer": fewer})
  assert set(names) == {"nce", "sigmoid", "spread"}
