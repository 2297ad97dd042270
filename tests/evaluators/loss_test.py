import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm
from mmjax.evaluators.loss import Loss


class Squares:
  """Sums the squares of a field where `example_mask` is True."""

  def __call__(self, apply, batch, *, rng, train):
    del apply, rng
    assert not train
    mask = batch["example_mask"].astype(jnp.float32)
    total = jnp.sum(batch["x"] ** 2 * mask)
    return LossTerm(total, jnp.sum(mask)), {
      "sum": LossTerm(jnp.sum(batch["x"] * mask), jnp.sum(mask))
    }

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


@pytest.fixture
def made(fake):
  x = np.array([1.0, 2.0, 3.0, 4.0, 5.0], np.float32)
  return lambda **fields: Loss(
    batches=fake.batched({"x": x}, 2),
    objectives={"a": Squares(), "b": Squares()},
    chance={"a": 12.0, "b": None},
    **fields,
  )


def test_means_are_over_all_real_examples_however_batched(fake, made):
  got = dict(made().run(fake.predict_with(), {}))
  assert got["a/loss"] == pytest.approx(11.0)  # 55 / 5
  assert got["a/sum"] == pytest.approx(3.0)


def test_below_chance_is_chance_minus_loss(fake, made):
  got = dict(made().run(fake.predict_with(), {}))
  assert got["a/below_chance"] == pytest.approx(1.0)
  assert "b/below_chance" not in got


def test_only_the_named_objectives_run(fake, made):
  got = dict(made(only=("b",)).run(fake.predict_with(), {}))
  assert set(got) == {"b/loss", "b/sum"}


def test_an_unknown_objective_is_refused(made):
  with pytest.raises(errors.UserError, match="'c'.*Known.*'a'"):
    made(only=("c",))
