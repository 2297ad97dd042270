import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.masked_lm import MaskedLM

V, D = 9, 4
INFO = ModelInfo(embed_dim=D, vocab_size=V, modalities=("image", "text"))
KEY = jax.random.key(0)


@pytest.fixture
def case(rng):
  """A batch, the encoded text behind one special token, and the head."""
  batch = {
    "text": jnp.asarray([[3, 4, 5, 6], [7, 8, 1, 0], [2, 2, 2, 2]]),
    "text_masked": jnp.asarray([[3, 1, 5, 1], [7, 8, 1, 0], [1, 1, 2, 2]]),
    "text_hidden": jnp.asarray([[1, 3], [2, 0], [0, 1]]),
    # The second example hides one token, the third is filler.
    "text_hidden_mask": jnp.asarray(
      [[True, True], [True, False]] + [[True] * 2]
    ),
    "example_mask": jnp.asarray([True, True, False]),
  }
  x = rng.normal(size=(3, 1 + 4, D)).astype(np.float32)
  kernel = rng.normal(size=(D, V)).astype(np.float32)
  sequence = Sequence(
    jnp.asarray(x), jnp.ones((3, 5), bool), num_prefix=1, num_content=4
  )
  return batch, sequence, kernel


def _results(sequence, kernel):
  return {
    ("fuse", ("image", "text"), "masked"): {"text": sequence},
    ("encode", "text", "masked"): sequence,
    ("head", "mlm", "clean"): lambda x: x @ kernel,
  }


def _by_hand(batch, sequence, kernel, by_hand):
  """Losses and hits of the hidden tokens that count, one at a time."""
  out, right = [], []
  for i, j in [(0, 1), (0, 3), (1, 2)]:
    logits = np.asarray(sequence.x[i, 1 + j], np.float64) @ kernel
    label = int(batch["text"][i, j])
    out.append(by_hand.cross_entropy(logits, label))
    right.append(np.argmax(logits) == label)
  return out, right


@pytest.mark.parametrize("given", [("image",), ()])
def test_the_loss_is_that_of_the_hidden_tokens(case, table, by_hand, given):
  batch, sequence, kernel = case
  apply = table(_results(sequence, kernel))
  loss, metrics = MaskedLM(given=given)(apply, batch, rng=KEY, train=True)
  values, right = _by_hand(*case, by_hand)
  np.testing.assert_allclose(loss.total, sum(values), rtol=1e-5)
  assert loss.weight == 3
  accuracy = metrics["accuracy"]
  assert (accuracy.total, accuracy.weight) == (sum(right), 3)
  seen = "fuse" if given else "encode"
  assert [call[0] for call in apply.calls] == [seen, "head"]


def test_what_is_given_is_fused_in_one_order(case, table):
  batch, sequence, kernel = case
  apply = table(
    {
      **_results(sequence, kernel),
      ("fuse", ("audio", "image", "text"), "masked"): {"text": sequence},
    }
  )
  MaskedLM(given=("image", "audio"))(apply, batch, rng=KEY, train=True)
  assert apply.calls[0] == ("fuse", ("audio", "image", "text"), "masked")


def test_without_filler_every_example_counts(case, table):
  batch, sequence, kernel = case
  batch = {k: v for k, v in batch.items() if k != "example_mask"}
  apply = table(_results(sequence, kernel))
  loss, _ = MaskedLM()(apply, batch, rng=KEY, train=True)
  assert loss.weight == 5


def test_chance_is_the_loss_of_uniform_logits(case, table):
  batch, sequence, _ = case
  apply = table(_results(sequence, np.zeros((D, V), np.float32)))
  loss, _ = MaskedLM()(apply, batch, rng=KEY, train=True)
  np.testing.assert_allclose(MaskedLM().chance(INFO, 3), loss.mean, rtol=1e-6)


def test_it_declares_its_fields_and_its_head():
  objective = MaskedLM(text="caption_text", given=(), head="words")
  assert isinstance(objective, Objective)
  fields = MaskedLM().fields(INFO)
  assert {name: spec.dtype for name, spec in fields.items()} == {
    "text": "int32",
    "image": "uint8",
    "text_masked": "int32",
    "text_hidden": "int32",
    "text_hidden_mask": "bool",
  }
  assert objective.heads(INFO) == {"words": {"name": "token", "num_classes": V}}


def test_the_batch_of_this_test_is_what_is_declared(case):
  batch, _, _ = case
  fields = MaskedLM(given=()).fields(INFO)
  assert set(fields) <= set(batch)
  assert all(spec.matches(batch[name]) for name, spec in fields.items())


def test_a_tied_head_names_the_encoder_whose_table_it_shares():
  assert MaskedLM(tied=True).heads(INFO) == {
    "mlm": {"name": "tied_token", "tied_to": "text", "num_classes": V}
  }
