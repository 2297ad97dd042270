import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.interfaces import Evaluator, LossTerm, Objective


@dataclasses.dataclass(frozen=True)
class _Objective:
  def __call__(self, apply, batch, *, rng, train):
    return LossTerm(jnp.zeros(()), jnp.ones(())), {}

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


class _Evaluator:
  def run(self, predict, params):
    yield "loss", 0.0


def test_the_mean_of_a_loss_is_total_over_weight():
  term = LossTerm(jnp.float32(6.0), jnp.float32(4.0))
  assert float(term.mean) == 1.5


def test_the_mean_of_nothing_is_zero():
  assert float(LossTerm(jnp.float32(0.0), jnp.float32(0.0)).mean) == 0.0


@pytest.mark.parametrize(("weight", "slope"), [(4.0, 0.25), (0.0, 0.0)])
def test_the_gradient_of_a_mean_is_finite(weight, slope):
  def mean(total, weight):
    return LossTerm(total, weight).mean

  by_total, by_weight = jax.grad(mean, argnums=(0, 1))(
    jnp.float32(2.0), jnp.float32(weight)
  )
  np.testing.assert_allclose(by_total, slope)
  np.testing.assert_allclose(by_weight, -2.0 * slope**2)


def test_sums_of_terms_have_the_mean_of_the_whole(rng):
  values = rng.normal(size=10).astype(np.float32)
  parts = [values[:3], values[3:]]
  terms = [LossTerm(jnp.float32(p.sum()), jnp.float32(p.size)) for p in parts]
  whole = jax.tree.map(lambda a, b: a + b, *terms)
  np.testing.assert_allclose(whole.mean, values.mean(), rtol=1e-5)


def test_plug_ins_are_recognised_by_their_methods():
  assert isinstance(_Objective(), Objective)
  assert isinstance(_Evaluator(), Evaluator)
  assert not isinstance(_Evaluator(), Objective)
  assert not isinstance(_Objective(), Evaluator)
