"""GPT-2 against `transformers`."""

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture(scope="module")
def model(pair, vocab_size):
  return pair(
    "GPT2LMHeadModel",
    "GPT2Config",
    n_embd=16,
    n_layer=2,
    n_head=2,
    n_positions=24,
    # Ids of the tokenizer that the model never got.
    vocab_size=vocab_size - 3,
    bos_token_id=1,
    eos_token_id=2,
  )


@pytest.fixture(scope="module")
def inputs(texts, vocab_size):
  ids = np.minimum(texts["ids"], vocab_size - 4)
  return {"ids": ids, "mask": texts["mask"]}


def test_hidden_states_and_logits_are_theirs(model, inputs, close, vocab_size):
  real = inputs["mask"]
  expected = model.run(
    input_ids=inputs["ids"], attention_mask=real.astype(np.int64)
  )
  ids, mask = jnp.asarray(inputs["ids"]), jnp.asarray(real)
  got = model.apply("decode", "text", ids, {}, mask=mask, train=False)
  close(np.asarray(got.x)[real], expected["last"][real])
  logits = np.asarray(model.apply("head", "lm", got.x))
  assert logits.shape[-1] == vocab_size
  close(logits[real][:, : vocab_size - 3], expected["logits"][real])
  assert np.all(logits[..., vocab_size - 3 :] < -9e3)  # Never said.


def test_export_gives_the_same_numbers(model, inputs, there_and_back):
  _, again = there_and_back(model)
  ids = model.torch.tensor(inputs["ids"])
  with model.torch.no_grad():
    got, expected = again(ids)[0], model.theirs(ids)[0]
  np.testing.assert_array_equal(got, expected)
