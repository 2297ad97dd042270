"""CLIP against `transformers`."""

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
EOS = 2  # Of the vocabulary: [SEP].


@pytest.fixture(scope="module")
def model(pair, tiny, vocab_size):
  return pair(
    "CLIPModel",
    "CLIPConfig",
    values={"logit_scale": 1.5},
    projection_dim=12,
    text_config=dict(
      tiny,
      vocab_size=vocab_size - 2,  # The tokenizer has some more.
      max_position_embeddings=10,
      eos_token_id=3,
    ),
    vision_config=dict(
      tiny, hidden_size=24, num_hidden_layers=1, image_size=16, patch_size=8
    ),
  )


@pytest.fixture(scope="module")
def batch(texts, pictures, model):
  """Texts that end in the token that theirs looks for, and pictures."""
  ids, mask = texts["ids"].copy(), texts["mask"]
  ids = np.minimum(ids, 50)
  last = mask.sum(axis=1) - 1
  ids[np.arange(len(ids)), last] = 3
  images = np.concatenate([pictures, pictures[:1, ::-1]])
  return dict(text=ids, text_mask=mask, image=images)


def _inputs(batch):
  mean = np.array([0.48145466, 0.4578275, 0.40821073])
  std = np.array([0.26862954, 0.26130258, 0.27577711])
  pixels = ((batch["image"] / 255 - mean) / std).transpose(0, 3, 1, 2)
  return dict(
    input_ids=batch["text"],
    attention_mask=batch["text_mask"].astype(np.int64),
    pixel_values=pixels.astype(np.float32),
  )


def _theirs(model, batch, **more):
  given = {n: model.torch.tensor(x) for n, x in _inputs(batch).items()}
  return model.theirs(**given, **more)


def test_hidden_states_and_features_are_theirs(model, batch, close):
  with model.torch.no_grad():
    expected = _theirs(model, batch)
    hidden = expected.vision_model_output.last_hidden_state
    hidden = model.theirs.vision_model.post_layernorm(hidden).numpy()
  mask = batch["text_mask"]
  text = model.apply(
    "encode",
    "text",
    jnp.asarray(batch["text"]),
    mask=jnp.asarray(mask),
    train=False,
  )
  image = model.apply(
    "encode", "image", jnp.asarray(batch["image"]), train=False
  )
  words = expected.text_model_output.last_hidden_state.numpy()
  close(np.asarray(text.x)[mask], words[mask])
  close(image.x, hidden)
  texts = model.apply("project", "text", text)
  images = model.apply("project", "image", image)
  close(texts, expected.text_embeds.numpy())
  close(images, expected.image_embeds.numpy())
  scale = model.apply("temperature")["scale"]
  close(scale * images @ texts.T, expected.logits_per_image.numpy())


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
  position = "vision_model.embeddings.position_embedding.weight"
  token = "vision_model.embeddings.class_embedding"
  before[token] += before[position][0]  # Ours is their sum.
  before[position][0] = 0
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  with model.torch.no_grad():
    expected = _theirs(model, batch).logits_per_image
    given = {n: model.torch.tensor(x) for n, x in _inputs(batch).items()}
    got = again(**given).logits_per_image
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
