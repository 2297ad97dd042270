import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import multitask
from mmjax.objectives.multitask import WeightedObjective

KEY = jax.random.key(0)


@dataclasses.dataclass(frozen=True)
class Recorder:
  """An objective whose loss is the sum of a field; keeps what it was given."""

  field: str = "x"
  calls: list = dataclasses.field(default_factory=list, compare=False)

  def __call__(self, apply, batch, *, rng, train):
    apply("reconstruct", self.field)
    self.calls.append((rng, train))
    x = batch[self.field]
    weight = jnp.float32(x.size)
    noise = LossTerm(jax.random.normal(rng), jnp.float32(1))
    return LossTerm(jnp.sum(x), weight), {"noise": noise}

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


BATCHES = {
  "a": {"x": jnp.asarray([1.0, 2.0])},
  "b": {"x": jnp.asarray([5.0, 6.0, 7.0])},
}


def _forward(objectives, *, call=lambda *_, **__: None, rng=KEY, train=True):
  return multitask.forward(objectives, call, BATCHES, rng, train=train)


def test_each_objective_reads_the_batch_of_its_task():
  terms, metrics = _forward(
    {
      "one": WeightedObjective("a", Recorder()),
      "two": WeightedObjective("b", Recorder()),
    }
  )
  assert (terms["one"].total, terms["one"].weight) == (3, 2)
  assert (terms["two"].total, terms["two"].weight) == (18, 3)
  assert set(metrics) == {"one/noise", "two/noise"}


def test_objectives_of_a_task_share_its_forward_pass():
  keys = []
  _forward(
    {
      "one": WeightedObjective("a", Recorder()),
      "two": WeightedObjective("a", Recorder()),
      "three": WeightedObjective("b", Recorder()),
    },
    call=lambda method, *args, key, **kwargs: keys.append(key),
  )
  assert len(keys) == 2  # One a task.


@pytest.mark.parametrize("train", [True, False])
def test_training_is_passed_on(train):
  recorder, seen = Recorder(), []
  _forward(
    {"one": WeightedObjective("a", recorder)},
    call=lambda *args, train, **kwargs: seen.append(train),
    train=train,
  )
  assert recorder.calls[0][1] is train
  assert seen == [train]


def test_adding_an_objective_does_not_change_the_randomness_of_others():
  one = WeightedObjective("a", Recorder())
  _, alone = _forward({"one": one})
  _, both = _forward({"zero": one, "one": one})
  assert alone["one/noise"].total == both["one/noise"].total
  assert both["zero/noise"].total != both["one/noise"].total


def test_randomness_follows_the_key():
  objectives = {"one": WeightedObjective("a", Recorder())}
  noise = [
    _forward(objectives, rng=key)[1]["one/noise"].total
    for key in (KEY, KEY, jax.random.key(1))
  ]
  assert noise[0] == noise[1] != noise[2]


def _terms(one, two, off):
  return {
    "one": LossTerm(jnp.float32(one), jnp.float32(4)),
    "two": LossTerm(jnp.float32(two), jnp.float32(5)),
    "off": LossTerm(jnp.float32(off), jnp.float32(6)),
  }


def _weights(**weights):
  return {name: jnp.float32(value) for name, value in weights.items()}


SCALES = _weights(one=2.0, two=0.5, off=0.0)


def test_the_loss_is_the_weighted_sum_of_means():
  got = multitask.weighted_sum(
    SCALES, _terms(8, 30, 7), _weights(one=4, two=5, off=6)
  )
  np.testing.assert_allclose(got, 2 * 8 / 4 + 0.5 * 30 / 5)


def test_micro_batches_add_up_to_the_whole_batch():
  weights = _weights(one=10, two=20, off=1)
  parts = [_terms(8, 30, 7), _terms(5, 2, 1), _terms(0, 1, 0)]
  got = sum(multitask.weighted_sum(SCALES, p, weights) for p in parts)
  np.testing.assert_allclose(got, 2 * 13 / 10 + 0.5 * 33 / 20, rtol=1e-6)


def test_an_objective_for_which_nothing_counts_adds_nothing():
  def loss(totals):
    terms = {
      name: LossTerm(total, jnp.float32(0))
      for name, total in zip(("one", "two"), totals, strict=True)
    }
    return multitask.weighted_sum(SCALES, terms, _weights(one=0, two=4))

  value, grad = jax.value_and_grad(loss)(jnp.asarray([3.0, 8.0]))
  np.testing.assert_allclose(value, 0.5 * 8 / 4)
  np.testing.assert_allclose(grad, [0.0, 0.5 / 4])


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_a_weight_below_zero_is_refused(weight):
  with pytest.raises(errors.UserError, match="expected >= 0"):
    WeightedObjective("a", Recorder(), weight)
