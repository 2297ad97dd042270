"""ViLT against `transformers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmjax.core import errors

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
MODELS = ("ViltModel", "ViltForMaskedLM", "ViltForQuestionAnswering")


@pytest.fixture(scope="module", autouse=True)
def in_order(library):
  """Theirs takes patches in random order, which changes nothing but that."""
  torch = library.torch
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(torch, "multinomial", lambda weights, n: torch.arange(n))
    yield


@pytest.fixture(scope="module")
def sizes(tiny, vocab_size):
  return dict(
    tiny,
    vocab_size=vocab_size,
    image_size=16,
    patch_size=4,
    max_position_embeddings=24,
  )


@pytest.fixture(scope="module", params=MODELS)
def model(request, pair, sizes):
  more = {}
  if request.param == "ViltForQuestionAnswering":
    more["num_labels"] = 5
  return pair(request.param, "ViltConfig", **sizes, **more)


def _their_inputs(texts, pictures):
  return dict(
    input_ids=texts["ids"][:2],
    attention_mask=texts["mask"][:2].astype(np.int64),
    pixel_values=(pictures / 127.5 - 1.0)
    .transpose(0, 3, 1, 2)
    .astype(np.float32),
  )


def _fuse(model, texts, pictures):
  ids, mask = (jnp.asarray(texts[k][:2]) for k in ("ids", "mask"))
  sequences = {
    "text": model.apply("encode", "text", ids, mask=mask, train=False),
    "image": model.apply("encode", "image", jnp.asarray(pictures), train=False),
  }
  return model.apply("fuse", sequences, train=False)


def test_hidden_states_pooled_and_logits_are_theirs(
  model, texts, pictures, close
):
  got, real = _fuse(model, texts, pictures), texts["mask"][:2]
  expected = model.run(**_their_inputs(texts, pictures))
  pooled = model.apply("pool", "text", got["text"])
  if "logits" not in expected:
    both = expected["last_hidden_state"]
    close(got["text"].x[real], both[:, :10][real])
    close(got["image"].x, both[:, 10:])
    close(pooled, expected["pooler_output"])
  elif expected["logits"].ndim == 3:
    logits = np.asarray(model.apply("head", "mlm", got["text"].x))
    close(logits[real], expected["logits"][real])
  else:
    close(model.apply("head", "label", pooled), expected["logits"])


def test_export_is_what_was_imported(
  model, texts, pictures, close, there_and_back
):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    if name.endswith(
      ("embeddings.cls_token", "embeddings.position_embeddings")
    ):
      continue  # The token comes back with its position, as their sum.
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported.get(k)} == set()
  torch = model.torch
  inputs = {
    name: torch.tensor(x) for name, x in _their_inputs(texts, pictures).items()
  }
  with torch.no_grad():
    got, expected = (m(**inputs)[0].numpy() for m in (again, model.theirs))
  close(got, expected)


def test_a_head_that_ranks_pairs_is_refused(pair, sizes):
  with pytest.raises(errors.UserError, match="rank_output.*ViltModel"):
    pair("ViltForImageAndTextRetrieval", "ViltConfig", **sizes)
