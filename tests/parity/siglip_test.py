"""SigLIP against `transformers`."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture(scope="module")
def model(pair, tiny, vocab_size):
  sizes = dict(tiny, hidden_size=24)
  return pair(
    "SiglipModel",
    "SiglipConfig",
    values={"logit_scale": 1.5, "logit_bias": -1.0},
    text_config=dict(
      tiny,
      vocab_size=vocab_size,
      max_position_embeddings=10,
      projection_size=24,
    ),
    vision_config=dict(sizes, num_hidden_layers=1, image_size=16, patch_size=8),
  )


@pytest.fixture(scope="module")
def batch(texts, pictures):
  """Texts, whose padding counts, and pictures."""
  images = np.concatenate([pictures, pictures[:1, ::-1]])
  return dict(text=texts["ids"], text_mask=texts["mask"], image=images)


def _theirs(model, batch, theirs=None, **more):
  pixels = ((batch["image"] / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
  return (theirs or model.theirs)(
    input_ids=model.torch.tensor(batch["text"]),
    pixel_values=model.torch.tensor(pixels.astype(np.float32)),
    **more,
  )


def test_hidden_states_and_features_are_theirs(model, batch, close):
  with model.torch.no_grad():
    expected = _theirs(model, batch)
  text = model.apply(
    "encode",
    "text",
    jnp.asarray(batch["text"]),
    mask=jnp.asarray(batch["text_mask"]),
    train=False,
  )
  image = model.apply(
    "encode", "image", jnp.asarray(batch["image"]), train=False
  )
  close(text.x, expected.text_model_output.last_hidden_state.numpy())
  close(image.x, expected.vision_model_output.last_hidden_state.numpy())
  pooled = model.apply("pool", "image", image)
  close(pooled, expected.vision_model_output.pooler_output.numpy())
  texts = model.apply("project", "text", text)
  images = model.apply("project", "image", image)
  close(texts, expected.text_embeds.numpy())
  close(images, expected.image_embeds.numpy())
  found = model.apply("temperature")
  logits = found["scale"] * images @ texts.T + found["bias"]
  close(logits, expected.logits_per_image.numpy())


def test_loss_and_gradients_are_theirs(model, batch, close_gradients):
  loss = _theirs(model, batch, return_loss=True).loss
  ours = model.loss(
    "contrastive", {n: jnp.asarray(x) for n, x in batch.items()}
  )
  close_gradients(model, loss, ours)


def test_export_is_what_was_imported(model, batch, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  with model.torch.no_grad():
    expected = _theirs(model, batch).logits_per_image
    got = _theirs(model, batch, again).logits_per_image
  np.testing.assert_allclose(got, expected, rtol=1e-5)
