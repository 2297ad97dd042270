import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.interfaces import Decoding, ModelInfo, Objective
from mmjax.objectives.conversation import Conversation

V = 9
INFO = ModelInfo(embed_dim=4, vocab_size=V)
KEY = jax.random.key(0)
DECODE = ("decode", "text", ("images",), "conversation", "clean")
# The first token of a row is never said, whatever the data claim.
ANSWER = [[True, False, True, True], [False, True, True, True]]


@pytest.fixture
def case(spoken):
  """As `spoken`: one row and a padded one; what is absent and fillers."""
  batch, sequence, kernel = spoken
  answer = jnp.asarray([*ANSWER, [True] * 4, [True] * 4])
  return {**batch, "text_answer": answer}, sequence, kernel


def _loss(table, batch, sequence, kernel):
  results = {
    DECODE: sequence,
    ("judge", "lm", "clean"): lambda x, y, judge: judge(x @ kernel, y),
  }
  return Conversation()(table(results), batch, rng=KEY, train=True)


def test_only_what_the_assistant_says_is_predicted(case, table, by_hand):
  batch, sequence, kernel = case
  loss, metrics = _loss(table, batch, sequence, kernel)
  total, right, weight = 0.0, 0, 0
  for i, length in ((0, 4), (1, 3)):  # The others don't count.
    for j in range(1, length):
      if ANSWER[i][j]:
        # Behind one special token, so what stands at j says token j.
        logits = np.asarray(sequence.x[i, j], np.float64) @ kernel
        label = int(batch["text"][i, j])
        total += by_hand.cross_entropy(logits, label)
        right += int(np.argmax(logits) == label)
        weight += 1
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == weight == 4
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (right, weight)


def test_what_is_not_said_may_be_anything(case, table):
  batch, sequence, kernel = case

  def run(x, text):
    changed = {**batch, "text": text}
    return _loss(table, changed, sequence.replace(x=x), kernel)[0].mean

  run = jax.jit(jax.value_and_grad(run))
  expected, grad = run(sequence.x, batch["text"])
  said = batch["text_answer"] & batch["text_mask"]
  got, same = run(sequence.x, jnp.where(said, batch["text"], 3))
  assert got == expected
  np.testing.assert_array_equal(grad, same)
  assert np.isfinite(grad).all() and np.abs(grad).max() > 0
  nothing = {**batch, "text_answer": jnp.zeros_like(batch["text_answer"])}
  loss, _ = _loss(table, nothing, sequence, kernel)
  assert (loss.total, loss.weight, loss.mean) == (0, 0, 0)


def test_it_says_what_it_needs_and_what_it_teaches():
  objective = Conversation(given=("images",), tied=True)
  assert isinstance(objective, Objective)
  assert objective.decoding == Decoding("text", ("images",), "conversation")
  assert {"images", "text_places", "text_answer"} <= set(objective.fields(INFO))
  assert objective.heads(INFO)["lm"]["name"] == "tied_token"
  assert objective.chance(INFO, 8) == pytest.approx(np.log(V))
  alone = Conversation(given=()).fields(INFO)
  assert not {"images", "text_places"} & set(alone)
