"""BERT, RoBERTa and MiniLM against `transformers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
MODELS = ("Model", "ForMaskedLM", "ForSequenceClassification")


@pytest.fixture(scope="module", params=["Bert", "Roberta"])
def family(request):
  return request.param


@pytest.fixture(scope="module", params=MODELS)
def model(request, family, pair, tiny, vocab_size):
  more = dict(max_position_embeddings=24, vocab_size=vocab_size)
  if family == "Roberta":  # Positions begin after the id of padding.
    more |= dict(max_position_embeddings=26, type_vocab_size=1)
  if request.param == "ForSequenceClassification":
    more["num_labels"] = 3
  return pair(family + request.param, f"{family}Config", **tiny, **more)


def _encode(model, texts):
  ids, mask = jnp.asarray(texts["ids"]), jnp.asarray(texts["mask"])
  return model.apply("encode", "text", ids, mask=mask, train=False)


def _run(model, texts):
  mask = texts["mask"].astype(np.int64)
  return model.run(input_ids=texts["ids"], attention_mask=mask)


def test_hidden_states_pooled_and_logits_are_theirs(model, texts, close):
  got, expected = _encode(model, texts), _run(model, texts)
  real = texts["mask"]
  close(np.asarray(got.x)[real], expected["last"][real])
  if "pooler_output" in expected:
    close(model.apply("pool", "text", got), expected["pooler_output"])
  elif expected["logits"].ndim == 3:
    logits = np.asarray(model.apply("head", "mlm", got.x))
    close(logits[real], expected["logits"][real])
  else:
    pooled = model.apply("pool", "text", got)
    close(model.apply("head", "label", pooled), expected["logits"])


def test_export_is_what_was_imported(model, texts, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    if name.endswith("position_embeddings.weight"):
      skip = len(array) - 24  # Rows that nobody reads.
      array, after[name] = array[skip:], after[name][skip:]
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported[k]} <= {
    "dtype",
    "transformers_version",
  }
  mask = texts["mask"].astype(np.int64)
  torch = model.torch
  with torch.no_grad():
    got = again(
      input_ids=torch.tensor(texts["ids"]), attention_mask=torch.tensor(mask)
    )[0].numpy()
  theirs = _run(model, texts)
  expected = theirs["logits"] if "logits" in theirs else theirs["last"]
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
