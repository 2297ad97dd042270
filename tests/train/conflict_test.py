import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.train import conflict


def test_gradient_of_each_objective_alone():
  params = {"x": jnp.float32(3.0), "y": jnp.float32(2.0)}
  losses = {"a": lambda p: p["x"] ** 2, "b": lambda p: p["x"] * p["y"]}

  got = conflict.gradients(lambda n, p: losses[n](p), ["a", "b"], params)

  assert got == {"a": {"x": 6.0, "y": 0.0}, "b": {"x": 2.0, "y": 3.0}}


GRADS = {
  "a": {"shared": jnp.asarray([3.0, 0.0]), "head_a": jnp.asarray([4.0])},
  "b": {"shared": jnp.asarray([-1.0, 1.0]), "head_b": jnp.asarray([9.0])},
  "c": {"head_c": jnp.asarray([2.0])},
}
NAMES = ("shared", "head_a", "head_b", "head_c")


def _filled(grads):
  return {n: grads.get(n, jnp.zeros(2 if n == "shared" else 1)) for n in NAMES}


def test_cosines_are_over_what_both_reach():
  got = conflict.metrics({n: _filled(g) for n, g in GRADS.items()})

  means = {name: float(term.mean) for name, term in got.items()}
  assert means["grad_norm/a"] == 5.0
  # The heads are left out: with them it would be -3 / (5 * sqrt(83)).
  assert means["grad_cosine/a/b"] == pytest.approx(-1 / np.sqrt(2))
  assert float(got["grad_cosine/a/b"].weight) == 1.0
  assert float(got["grad_cosine/a/c"].weight) == 0.0
  assert np.isfinite(float(got["grad_cosine/a/c"].total))


def test_cosine_of_small_gradients_is_one():
  tiny = {"shared": jnp.full(4, 1e-12)}

  got = conflict.metrics({"a": tiny, "b": tiny})

  assert float(got["grad_cosine/a/b"].mean) == pytest.approx(1.0, rel=1e-4)
