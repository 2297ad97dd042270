import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.objectives.prefix_lm import PrefixLM

V = 9
INFO = ModelInfo(embed_dim=4, vocab_size=V)
KEY = jax.random.key(0)


@pytest.mark.parametrize("given", [("image",), ()])
def test_the_loss_is_that_of_the_tokens_after_the_prefix(
  spoken, table, said_by_hand, given
):
  batch, sequence, kernel = spoken
  batch = {**batch, "text_prefix": jnp.asarray([3, 1, 0, 0])}
  apply = table(
    {
      ("decode", "text", given, "prefix", "clean"): sequence,
      ("judge", "lm", "clean"): lambda x, y, judge: judge(x @ kernel, y),
    }
  )
  loss, metrics = PrefixLM(given=given)(apply, batch, rng=KEY, train=True)
  # Of the first text only eos is left, of the second a word and eos.
  values, right = said_by_hand(*spoken)
  np.testing.assert_allclose(loss.total, sum(values[2:]), rtol=1e-5)
  accuracy = metrics["accuracy"]
  assert (loss.weight, accuracy.weight) == (3, 3)
  assert accuracy.total == sum(right[2:])


def test_chance_is_the_loss_of_uniform_logits(spoken, table):
  batch, sequence, kernel = spoken
  batch = {**batch, "text_prefix": jnp.ones(4, jnp.int32)}
  apply = table(
    {
      ("decode", "text", (), "prefix", "clean"): sequence,
      ("judge", "lm", "clean"): lambda x, y, judge: judge(0 * x @ kernel, y),
    }
  )
  objective = PrefixLM(given=())
  loss, _ = objective(apply, batch, rng=KEY, train=True)
  np.testing.assert_allclose(objective.chance(INFO, 4), loss.mean, rtol=1e-6)


def test_it_declares_its_fields_and_its_head():
  objective = PrefixLM(given=("video",), head="rest")
  assert isinstance(objective, Objective)
  fields = {n: str(s) for n, s in objective.fields(INFO).items()}
  assert fields == {
    "video": "uint8[b, ?, ?, ?, 3]",
    "text": "int32[b, ?]",
    "text_prefix": "int32[b]",
  }
  assert objective.heads(INFO) == {"rest": {"name": "linear", "num_classes": V}}
