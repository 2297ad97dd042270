import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm
from mmjax.evaluators.perplexity import Perplexity


class Tokens:
  """Sums the losses of tokens that a field gives."""

  def __init__(self, decoding):
    self.decoding = decoding

  def __call__(self, apply, batch, *, rng, train):
    del apply, rng, train
    counts = batch["counts"] & batch["example_mask"][:, None]
    total = jnp.sum(jnp.where(counts, batch["nats"], 0.0))
    return LossTerm(total, jnp.sum(counts)), {"accuracy": LossTerm(total, 1.0)}

  def fields(self, info):
    return {}

  def heads(self, info):
    return {}

  def chance(self, info, batch_size):
    return None


@pytest.fixture
def make(fake, rng):
  nats = rng.uniform(0, 3, (5, 4)).astype(np.float32)
  counts = rng.uniform(size=(5, 4)) < 0.6
  columns = {"nats": nats, "counts": counts}

  def made(objectives, **options):
    return Perplexity(
      batches=fake.batched(columns, 2), objectives=objectives, **options
    )

  return made, fake.predict_with(), float(np.exp(nats[counts].mean()))


def test_it_is_e_to_the_mean_loss_of_all_tokens(make):
  made, predict, expected = make
  objectives = {"lm": Tokens("some"), "other": Tokens(None)}
  got = dict(made(objectives).run(predict, {}))
  assert got == {"lm": pytest.approx(expected, rel=1e-5)}


def test_any_objective_can_be_named(make):
  made, predict, expected = make
  got = dict(made({"mlm": Tokens(None)}, only=("mlm",)).run(predict, {}))
  assert got == {"mlm": pytest.approx(expected, rel=1e-5)}


def test_a_run_without_language_model_is_refused(make):
  with pytest.raises(errors.UserError, match="word by word.*'other'"):
    make[0]({"other": Tokens(None)})
  with pytest.raises(errors.UserError, match="Did you mean 'other'"):
    make[0]({"other": Tokens(None)}, only=("othre",))
