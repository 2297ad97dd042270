import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives.contrastive import Contrastive

INFO = ModelInfo(embed_dim=4)
KEY = jax.random.key(0)
SCALE = 8.0


@pytest.fixture
def rows(rng):
  x = rng.normal(size=(2, 5, 4))
  x /= np.linalg.norm(x, axis=-1, keepdims=True)
  return jnp.asarray(x, jnp.float32)


def _results(a, b, views=("clean", "clean")):
  return {
    ("project", "image", views[0]): a,
    ("project", "text", views[1]): b,
    ("temperature", "clean"): {"scale": jnp.float32(SCALE)},
  }


@pytest.mark.parametrize("filler", [False, True])
def test_the_loss_is_info_nce_of_the_examples_that_count(
  rows, table, by_hand, filler
):
  mask = np.asarray([True, True, not filler, True, not filler])
  batch = {"example_mask": jnp.asarray(mask)} if filler else {}
  loss, metrics = Contrastive()(
    table(_results(*rows)), batch, rng=KEY, train=True
  )
  np.testing.assert_allclose(
    loss.total, by_hand.info_nce(*rows, SCALE, mask), rtol=1e-5
  )
  assert loss.weight == mask.sum()
  a, b = np.asarray(rows, np.float64)[:, mask]
  right = sum(int(np.argmax([a[i] @ c for c in b]) == i) for i in range(len(a)))
  assert metrics["accuracy"].total == right
  assert metrics["accuracy"].weight == mask.sum()
  assert metrics["scale"].mean == SCALE


def test_filler_is_never_the_best_match(table):
  a = jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
  b = jnp.asarray([[0.5, 0.0], [0.0, 0.5], [9.0, 9.0]])
  batch = {"example_mask": jnp.asarray([True, True, False])}
  _, metrics = Contrastive()(table(_results(a, b)), batch, rng=KEY, train=True)
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (2, 2)


def test_each_side_has_a_view_of_its_own(rows, table):
  views = ("masked", "clean")
  apply = table(_results(*rows, views))
  Contrastive(views=views)(apply, {}, rng=KEY, train=True)
  assert apply.calls[:2] == [
    ("project", "image", "masked"),
    ("project", "text", "clean"),
  ]


def test_chance_is_the_loss_of_equal_projections(table):
  ones = jnp.full((5, 4), 0.5)
  loss, _ = Contrastive()(table(_results(ones, ones)), {}, rng=KEY, train=True)
  np.testing.assert_allclose(
    Contrastive().chance(INFO, 5), loss.mean, rtol=1e-6
  )


@pytest.mark.parametrize(
  ("negatives", "coupled"), [("global", True), ("micro_batch", False)]
)
def test_it_says_whether_examples_are_coupled(negatives, coupled):
  assert Contrastive(negatives=negatives).couples_examples is coupled


def test_it_declares_its_fields_and_no_head():
  assert isinstance(Contrastive(), Objective)
  fields = Contrastive().fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "image": "uint8",
    "text": "int32",
  }
  assert Contrastive().heads(INFO) == {}


def test_an_unknown_kind_of_negatives_is_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'global'"):
    Contrastive(negatives="globl")
