"""FLAVA against `transformers`: three stacks, six heads, all losses."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
NUM_CODES, NUM_PATCHES = 30, 16
SCALE = {"flava.logit_scale": 3.0, "logit_scale": 3.0}  # Within its limits.
MODELS = ("FlavaModel", "FlavaForPreTraining")


@pytest.fixture(scope="module")
def make(pair, tiny, vocab_size):
  def made(name):
    return pair(
      name,
      "FlavaConfig",
      values=SCALE,
      text_config=dict(tiny, vocab_size=vocab_size, max_position_embeddings=24),
      image_config=dict(
        tiny, image_size=16, patch_size=4, vocab_size=NUM_CODES
      ),
      multimodal_config=tiny,
      hidden_size=tiny["hidden_size"],
      projection_dim=12,
      init_codebook=False,
    )

  return made


@pytest.fixture(scope="module")
def pretraining(make):
  return make("FlavaForPreTraining")


@pytest.fixture(scope="module")
def batch(texts):
  """Three pairs with what is hidden of them: 3 patches, 1 or 2 words."""
  rng = np.random.default_rng(2)
  text, mask = texts["ids"], texts["mask"]
  masked = text.copy()
  masked[[0, 0, 1, 2], [1, 7, 4, 2]] = 4
  return dict(
    image=rng.integers(0, 256, (3, 16, 16, 3), np.uint8),
    text=text.astype(np.int32),
    text_mask=mask,
    text_masked=masked.astype(np.int32),
    text_hidden=np.array([[1, 7], [4, 0], [2, 0]], np.int32),
    text_hidden_mask=np.array([[True, True], [True, False], [True, False]]),
    image_hidden=np.array([[0, 5, 11], [2, 3, 15], [7, 8, 9]], np.int32),
    image_codes=rng.integers(0, NUM_CODES, (3, NUM_PATCHES), np.int32),
  )


def _pixels(pictures):
  """Normalised as CLIP's, which FLAVA takes over."""
  mean = np.array([0.48145466, 0.4578275, 0.40821073])
  std = np.array([0.26862954, 0.26130258, 0.27577711])
  pixels = (pictures / 255.0 - mean) / std
  return pixels.transpose(0, 3, 1, 2).astype(np.float32)


def _their_inputs(batch, torch):
  """The same batch as their model takes it, by modality."""
  hidden = np.zeros((3, NUM_PATCHES), bool)
  hidden[np.arange(3)[:, None], batch["image_hidden"]] = True
  labels = np.where(batch["text_masked"] != batch["text"], batch["text"], -100)
  codes = np.where(hidden, batch["image_codes"], -100)
  text = dict(
    input_ids=batch["text"],
    input_ids_masked=batch["text_masked"],
    attention_mask=batch["text_mask"].astype(np.int64),
    mlm_labels=labels.astype(np.int64),
  )
  image = dict(
    pixel_values=_pixels(batch["image"]),
    bool_masked_pos=hidden,
    mim_labels=codes.astype(np.int64),
  )
  # Theirs writes into its labels.
  return tuple(
    {name: torch.tensor(x.copy()) for name, x in fields.items()}
    for fields in (text, image)
  )


def _encode(model, batch, view=""):
  """Both modalities; of the view "masked", with tokens hidden."""
  masked = view == "masked"
  text = batch["text_masked" if masked else "text"]
  return {
    "text": model.apply(
      "encode",
      "text",
      jnp.asarray(text),
      mask=jnp.asarray(batch["text_mask"]),
      train=False,
    ),
    "image": model.apply(
      "encode",
      "image",
      jnp.asarray(batch["image"]),
      hidden=jnp.asarray(batch["image_hidden"]) if masked else None,
      train=False,
    ),
  }


@pytest.mark.parametrize("name", MODELS)
def test_hidden_states_of_three_stacks_are_theirs(make, name, batch, close):
  model = make(name)
  text, image = _their_inputs(batch, model.torch)
  whole = getattr(model.theirs, "flava", model.theirs)
  with model.torch.no_grad():
    expected = whole(
      input_ids=text["input_ids"],
      attention_mask=text["attention_mask"],
      pixel_values=image["pixel_values"],
    )
  got, real = _encode(model, batch), batch["text_mask"]
  close(got["image"].x, expected.image_embeddings.numpy())
  close(got["text"].x[real], expected.text_embeddings.numpy()[real])
  fused = model.apply("fuse", got, train=False)
  both = expected.multimodal_embeddings.numpy()
  close(fused["cls"].x, both[:, :1])
  close(fused["image"].x, both[:, 1 : 2 + NUM_PATCHES])
  close(fused["text"].x[real], both[:, 2 + NUM_PATCHES :][real])


def test_logits_of_all_heads_are_theirs(pretraining, batch, close):
  model, torch = pretraining, pretraining.torch
  text, image = _their_inputs(batch, torch)
  with torch.no_grad():
    pairs = model.theirs(**text, **image, return_loss=False)
    texts = model.theirs(**text, return_loss=False)
    pictures = model.theirs(**image, return_loss=False)
  alone = _encode(model, batch, "masked")
  fused = model.apply("fuse", alone, train=False)
  hidden = {m: jnp.asarray(batch[f"{m}_hidden"]) for m in ("text", "image")}
  real = batch["text_hidden_mask"]
  for head, found in (("mlm", alone), ("mmm_text", fused)):
    got = model.apply("head", head, found["text"].take(hidden["text"]))
    expected = texts.mlm_logits if head == "mlm" else pairs.mmm_text_logits
    close(np.asarray(got)[real], expected.numpy())
  for head, found in (("mim", alone), ("mmm_image", fused)):
    got = model.apply("head", head, found["image"].take(hidden["image"]))
    expected = pictures.mim_logits if head == "mim" else pairs.mmm_image_logits
    close(np.asarray(got).reshape(-1, NUM_CODES), expected.numpy())
  got = model.apply("head", "matching", fused["cls"].x[:, 0])
  close(got, pairs.itm_logits.numpy())
  clean = _encode(model, batch)
  a, b = (model.apply("project", m, clean[m]) for m in ("image", "text"))
  scale = model.apply("temperature")["scale"]
  close(scale * a @ b.T, pairs.contrastive_logits_per_image.numpy())


def test_losses_and_gradients_are_theirs(pretraining, batch, close_gradients):
  model, torch = pretraining, pretraining.torch
  text, image = _their_inputs(batch, torch)
  belong = torch.ones(3, dtype=torch.long)
  losses = [
    model.theirs(**_copied(text), **_copied(image), itm_labels=belong).loss,
    model.theirs(**_copied(text)).loss,
    model.theirs(**_copied(image)).loss,
  ]
  names = ("mlm", "mim", "mmm_text", "mmm_image", "contrastive")
  ours = [
    model.loss(n, {k: jnp.asarray(x) for k, x in batch.items()}) for n in names
  ]

  def matching(params):
    """Of pairs that belong together, as no negatives were made of theirs."""
    with_params = _With(model, params)
    fused = with_params.apply(
      "fuse", _encode(with_params, batch, "masked"), train=False
    )
    logits = with_params.apply("head", "matching", fused["cls"].x[:, 0])
    largest = logits.max(axis=1, keepdims=True)
    total = jnp.log(jnp.exp(logits - largest).sum(axis=1)) + largest[:, 0]
    return (total - logits[:, 1]).mean()

  close_gradients(
    model,
    sum(losses),
    lambda params: sum(f(params) for f in (*ours, matching)),
  )


class _With:
  """Ours with other parameters."""

  def __init__(self, model, params):
    self._model, self._params = model.ours.experiment.parts.model, params

  def apply(self, method, *args, **kwargs):
    variables = {"params": self._params}
    return self._model.apply(variables, *args, method=method, **kwargs)


def _copied(fields):
  return {name: x.clone() for name, x in fields.items()}


@pytest.mark.parametrize("name", MODELS)
def test_export_is_what_was_imported(make, name, batch, close, there_and_back):
  model = make(name)
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  poolers = {n for n in before if "_model.pooler" in n}
  assert set(after) == set(before) - poolers and len(poolers) == 6
  for tensor, array in after.items():
    expected = before[tensor]
    if tensor.endswith("image_model.embeddings.cls_token"):
      first = tensor.replace("cls_token", "position_embeddings")
      expected = expected + before[first][:, :1]
    if tensor.endswith("image_model.embeddings.position_embeddings"):
      expected = expected.copy()
      expected[:, 0] = 0
    np.testing.assert_array_equal(array, expected, err_msg=tensor)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported[k]} == set()
  text, image = _their_inputs(batch, model.torch)
  inputs = dict(
    input_ids=text["input_ids"],
    attention_mask=text["attention_mask"],
    pixel_values=image["pixel_values"],
  )
  with model.torch.no_grad():
    got, expected = (
      getattr(m, "flava", m)(**inputs).multimodal_embeddings.numpy()
      for m in (again, model.theirs)
    )
  close(got, expected)
