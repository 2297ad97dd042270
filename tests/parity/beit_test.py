"""BEiT against `transformers`: features, logits, loss and gradients."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmjax.core import errors
from mmjax.objectives.vision_token_prediction import VisionTokenPrediction

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
SIZES = dict(image_size=16, patch_size=4)
LAYER = dict(use_relative_position_bias=True)
SHARED = dict(use_shared_relative_position_bias=True)
PLACES = dict(use_absolute_position_embeddings=True)
CLS = dict(use_mean_pooling=False)
CODES = dict(use_mask_token=True, vocab_size=32)
MODELS = {
  "layer": ("BeitModel", LAYER),
  "shared cls": ("BeitModel", dict(SHARED, **CLS, use_mask_token=True)),
  "places": ("BeitModel", dict(PLACES, layer_scale_init_value=0.0)),
  "places cls": ("BeitModel", dict(PLACES, **CLS)),
  "label": ("BeitForImageClassification", dict(LAYER, num_labels=5)),
  "codes": ("BeitForMaskedImageModeling", dict(SHARED, **CODES)),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, pair, tiny):
  name, more = MODELS[request.param]
  return pair(name, "BeitConfig", **tiny, **SIZES, **more)


def _pixels(pictures):
  return ((pictures / 255 - 0.5) / 0.5).astype(np.float32).transpose(0, 3, 1, 2)


def test_hidden_states_pooled_and_logits_are_theirs(model, pictures, close):
  expected = model.run(pixel_values=_pixels(pictures))
  got = model.apply("encode", "image", jnp.asarray(pictures), train=False)
  if "logits" in expected and expected["logits"].ndim == 3:
    close(model.apply("head", "vtp", got.content), expected["logits"])
    return
  pooled = model.apply("pool", "image", got)
  if "logits" in expected:
    close(model.apply("head", "label", pooled), expected["logits"])
  else:
    close(got.x, expected["last_hidden_state"])
    close(pooled, expected["pooler_output"])


def test_export_is_what_was_imported(model, pictures, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  places = any("position_embeddings" in name for name in before)
  for name, array in before.items():
    added = "cls_token" in name or "position_embeddings" in name
    if not (places and added):  # There, their sum is kept.
      np.testing.assert_array_equal(after[name], array, err_msg=name)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported.get(k)} <= {
    "dtype",
    "transformers_version",
  }
  pixels = model.torch.tensor(_pixels(pictures))
  with model.torch.no_grad():
    got, expected = again(pixels)[0], model.theirs(pixels)[0]
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [LAYER, SHARED])
def test_loss_and_gradients_of_hidden_codes_are_theirs(
  pair, tiny, pictures, close_gradients, bias
):
  model = pair(
    "BeitForMaskedImageModeling",
    "BeitConfig",
    **tiny,
    **SIZES,
    **bias,
    **CODES,
  )
  rng = np.random.default_rng(3)
  hidden = np.array([[1, 2, 7, 9], [0, 3, 8, 15]])
  codes = rng.integers(0, 32, (2, 16))
  mask = np.zeros((2, 16), bool)
  np.put_along_axis(mask, hidden, True, axis=1)
  torch = model.torch
  loss = model.theirs(
    pixel_values=torch.tensor(_pixels(pictures)),
    bool_masked_pos=torch.tensor(mask),
    labels=torch.tensor(codes[mask]),
  ).loss
  batch = {
    "image": jnp.asarray(pictures),
    "image_hidden": jnp.asarray(hidden),
    "image_codes": jnp.asarray(codes),
  }
  objective = VisionTokenPrediction(given=(), head_kind="linear")
  close_gradients(model, loss, model.loss(objective, batch))


def test_two_kinds_of_relative_positions_are_refused(pair, tiny):
  with pytest.raises(errors.UserError, match="shared_relative_position_bias"):
    pair("BeitModel", "BeitConfig", **tiny, **SIZES, **LAYER, **SHARED)
