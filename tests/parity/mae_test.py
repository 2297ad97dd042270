"""MAE against `transformers`: features, pixels, loss and gradients."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmjax.build import converting
from mmjax.core import errors

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = dict(image_size=16, patch_size=4, mask_ratio=0.5)
DECODER = dict(
  decoder_hidden_size=12,
  decoder_num_hidden_layers=1,
  decoder_num_attention_heads=2,
  decoder_intermediate_size=20,
)
PLACES = "decoder.decoder_pos_embed"


@pytest.fixture(scope="module")
def backbone(pair, tiny):
  return pair("ViTMAEModel", "ViTMAEConfig", **tiny, **SIZES)


@pytest.fixture(scope="module", params=[True, False])
def model(request, pair, tiny):
  sizes = dict(tiny, **SIZES, **DECODER, norm_pix_loss=request.param)
  name = "ViTMAEForPreTraining"
  made = pair(name, "ViTMAEConfig", **sizes, values={PLACES: 0.0})
  # The class token's stays 0, as sines and cosines have it.
  with made.torch.no_grad():
    places = made.theirs.decoder.decoder_pos_embed
    places[:, 1:] = 0.3 * made.torch.randn_like(places[:, 1:])
  made.theirs.save_pretrained(made.folder)
  return dataclasses.replace(made, ours=converting.load(made.folder))


def _pixels(pictures):
  pixels = ((pictures / 255 - MEAN) / STD).astype(np.float32)
  return pixels.transpose(0, 3, 1, 2)


def _noise():
  """And the patches that it hides: those of the highest."""
  noise = np.random.default_rng(4).random((2, 16)).astype(np.float32)
  return noise, np.sort(np.argsort(noise, axis=1)[:, 8:], axis=1)


def _batch(pictures):
  hidden = jnp.asarray(_noise()[1])
  return {"image": jnp.asarray(pictures), "image_hidden": hidden}


def test_features_without_hidden_patches_are_theirs(backbone, pictures, close):
  noise, hidden = _noise()
  with backbone.torch.no_grad():
    made = backbone.theirs(
      backbone.torch.tensor(_pixels(pictures)), backbone.torch.tensor(noise)
    )
  order = np.argsort(made.ids_restore.numpy(), axis=1)[:, :8]  # As they are.
  got = backbone.apply(
    "encode",
    "image",
    jnp.asarray(pictures),
    hidden=jnp.asarray(hidden),
    train=False,
  )
  rank = np.argsort(np.argsort(order, axis=1), axis=1)  # Ours are sorted.
  content = np.take_along_axis(np.asarray(got.content), rank[..., None], axis=1)
  expected = made.last_hidden_state.numpy()
  close(np.concatenate([got.x[:, :1], content], axis=1), expected)


def test_predicted_pixels_are_theirs(model, pictures, close):
  noise, hidden = _noise()
  expected = model.run(pixel_values=_pixels(pictures), noise=noise)["logits"]
  seen = model.apply(
    "encode",
    "image",
    jnp.asarray(pictures),
    hidden=jnp.asarray(hidden),
    train=False,
  )
  restored = model.apply("restore", "image", seen, train=False)
  close(model.apply("head", "pixels", restored.content), expected)


def test_loss_and_gradients_are_theirs(model, pictures, close_gradients):
  theirs, torch = model.theirs, model.torch
  places = theirs.decoder.decoder_pos_embed
  for fixed in (places, theirs.vit.embeddings.position_embeddings):
    fixed.requires_grad_(True)
  hook = places.register_hook(  # Ours has no position of the class token.
    lambda g: torch.cat([torch.zeros_like(g[:, :1]), g[:, 1:]], dim=1)
  )
  loss = theirs(torch.tensor(_pixels(pictures)), torch.tensor(_noise()[0])).loss
  close_gradients(model, loss, model.loss("mae", _batch(pictures)))
  hook.remove()


def test_export_is_what_was_imported(model, pictures, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    if name not in (
      "vit.embeddings.cls_token",
      "vit.embeddings.position_embeddings",
    ):
      np.testing.assert_array_equal(after[name], array, err_msg=name)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported.get(k)} <= {
    "dtype",
    "transformers_version",
  }
  torch = model.torch
  inputs = torch.tensor(_pixels(pictures)), torch.tensor(_noise()[0])
  with torch.no_grad():
    got, expected = again(*inputs), model.theirs(*inputs)
  np.testing.assert_allclose(got.logits, expected.logits, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(got.loss, expected.loss, rtol=1e-5)


def test_a_position_of_the_class_token_is_refused(pair, tiny):
  with pytest.raises(errors.UserError, match="decoder_pos_embed.*no place"):
    pair("ViTMAEForPreTraining", "ViTMAEConfig", **tiny, **SIZES, **DECODER)
