"""Losses of many tokens with many classes, some at a time."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.models import heads
from mmjax.objectives import next_token
from mmjax.sharding import rules
from mmjax.sharding.mesh import MeshShape, make_mesh

B, N, D, CLASSES = 2, 7, 4, 11


@pytest.fixture(params=["linear", "tied"])
def head(request, rng):
  """A head, its parameters and what it is given."""
  if request.param == "linear":
    module, given = heads.LinearHead(CLASSES), {}
  else:
    module = heads.TiedTokenHead(CLASSES, transform=False)
    table = rng.normal(size=(CLASSES, D)).astype(np.float32)
    given = {"table": jnp.asarray(table)}
  x = jnp.zeros((1, 1, D))
  params = module.init(jax.random.key(0), x, **given)["params"]
  values = lambda p: rng.normal(size=p.shape).astype(np.float32)  # noqa: E731
  return module, jax.tree.map(values, params), given


def _loss(module, parts):
  """A weighted sum of what is judged, as a function of all that is learned."""

  def run(params, given, x, labels, weights):
    def method(m, x, labels):
      if parts == 1:
        return next_token._judge(m(x, **given), labels)
      return heads.judge_in_parts(
        m, x, labels, next_token._judge, parts, **given
      )

    said = module.apply({"params": params}, x, labels, method=method)
    return jnp.sum(said.nats * weights), said

  return run


@pytest.mark.parametrize("parts", [2, 3, 7])
def test_in_parts_it_is_the_same(head, rng, parts):
  module, params, given = head
  x = jnp.asarray(rng.normal(size=(B, N, D)), jnp.float32)
  labels = jnp.asarray(rng.integers(0, CLASSES, (B, N)))
  weights = jnp.asarray(rng.normal(size=(B, N)), jnp.float32)
  results = [
    jax.jit(
      jax.value_and_grad(_loss(module, k), argnums=(0, 1, 2), has_aux=True)
    )(params, given, x, labels, weights)
    for k in (1, parts)
  ]
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-6)


def test_the_logits_are_never_all_there(rng, monkeypatch):
  classes, n = 512, 64
  module = heads.LinearHead(classes)
  monkeypatch.setattr(heads, "MOST_LOGITS", B * 8 * classes)
  x = jnp.zeros((B, n, D))
  assert heads.num_parts(module, x) == 8
  params = module.init(jax.random.key(0), x[:, :1])["params"]
  args = params, {}, x, jnp.zeros((B, n), jnp.int32), jnp.ones((B, n))
  shapes = {}
  for parts in (1, 8):
    step = jax.jit(jax.grad(_loss(module, parts), has_aux=True))
    text = step.lower(*args).compile().as_text()
    shapes[parts] = {
      np.prod([int(d) for d in dims.split(",")])
      for dims in re.findall(r"f32\[([\d,]+)\]", text)
    }
  assert max(shapes[1]) >= B * n * classes
  assert max(shapes[8]) <= B * 8 * classes


def test_few_logits_are_computed_at_once():
  module = heads.LinearHead(1000)
  assert heads.num_parts(module, jnp.zeros((2, 30, 4))) == 1


def test_parts_are_as_many_as_the_logits_ask_for(monkeypatch):
  monkeypatch.setattr(heads, "MOST_LOGITS", 2000)
  module = heads.LinearHead(100)
  parts = lambda b, n: heads.num_parts(module, jnp.zeros((b, n, 4)))  # noqa: E731
  assert parts(2, 10) == 1  # 2000 logits.
  assert parts(2, 11) == 2
  assert parts(4, 15) == 3
  assert parts(90, 2) == 2  # At most one for each token.


def test_logits_are_those_of_a_device(monkeypatch):
  monkeypatch.setattr(heads, "MOST_LOGITS", 1000)
  module, x = heads.LinearHead(100), jnp.zeros((8, 10, 4))
  mesh = make_mesh(MeshShape(data=4), jax.devices()[:4])
  assert heads.num_parts(module, x) == 8
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules.rules("fsdp_tensor")):
    assert heads.num_parts(module, x) == 2
    assert heads.num_parts(module, x[:6]) == 6  # Does not divide: whole.
