"""DINOv2, with registers too, against `transformers`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from mmjax.core import errors

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2)
MODELS = {
  "plain": ("Dinov2Model", {}),
  "gated": ("Dinov2Model", dict(use_swiglu_ffn=True, use_mask_token=False)),
  "label": ("Dinov2ForImageClassification", dict(num_labels=5)),
  "registers": ("Dinov2WithRegistersModel", dict(num_register_tokens=3)),
  "registers label": (
    "Dinov2WithRegistersForImageClassification",
    dict(num_register_tokens=3, num_labels=5),
  ),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request, pair):
  name, more = MODELS[request.param]
  config = "Dinov2WithRegisters" if "With" in name else "Dinov2"
  sizes = dict(SIZES, image_size=16, patch_size=4, mlp_ratio=2)
  return pair(name, f"{config}Config", **sizes, **more)


def _pixels(pictures):
  pixels = ((pictures / 255 - MEAN) / STD).astype(np.float32)
  return pixels.transpose(0, 3, 1, 2)


def _hidden_states(model, pictures):
  """Theirs after the last norm, whatever head comes after."""
  backbone = getattr(model.theirs, model.theirs.base_model_prefix, model.theirs)
  with model.torch.no_grad():
    return backbone(model.torch.tensor(_pixels(pictures)))[0].numpy()


def test_hidden_states_pooled_and_logits_are_theirs(model, pictures, close):
  expected = model.run(pixel_values=_pixels(pictures))
  got = model.apply("encode", "image", jnp.asarray(pictures), train=False)
  close(got.x, _hidden_states(model, pictures))
  pooled = model.apply("pool", "image", got)
  if "logits" in expected:
    close(model.apply("head", "label", pooled), expected["logits"])
  else:
    close(pooled, expected["pooler_output"])


def test_hidden_patches_are_replaced_by_their_token(model, pictures, close):
  if model.theirs.config.to_dict().get("use_mask_token", True) is False:
    pytest.skip("it has none")
  backbone = getattr(model.theirs, model.theirs.base_model_prefix, model.theirs)
  hidden = np.array([[1, 2, 7], [0, 8, 15]])
  mask = np.zeros((2, 16), bool)
  np.put_along_axis(mask, hidden, True, axis=1)
  with model.torch.no_grad():
    expected = backbone(
      model.torch.tensor(_pixels(pictures)),
      bool_masked_pos=model.torch.tensor(mask),
    )[0].numpy()
  got = model.apply(
    "encode",
    "image",
    jnp.asarray(pictures),
    hidden=jnp.asarray(hidden),
    train=False,
  )
  close(got.x, expected)


def test_export_is_what_was_imported(model, pictures, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    if "cls_token" not in name and "position_embeddings" not in name:
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


@pytest.mark.parametrize(
  ("name", "method"),
  [("Dinov2", "cubic_sharp"), ("Dinov2WithRegisters", "cubic")],
)
@pytest.mark.parametrize("side", [24, 12])
def test_positions_of_another_size_are_theirs(pair, close, name, method, side):
  from mmjax.build import experiment
  from mmjax.core import config as config_lib
  from mmjax.finetune import surgery

  model = pair(
    f"{name}Model", f"{name}Config", **SIZES, image_size=16, patch_size=4
  )
  pictures = np.random.default_rng(2).integers(0, 256, (2, side, side, 3))
  plain = config_lib.plain(model.ours.experiment.config)
  config = config_lib.from_plain(plain)
  config.model.encoders.image.image_size = side
  config.data.image.size = side
  made = experiment.prepare(config)
  params, _ = surgery.load_partial(
    made.abstract_state.params,
    model.ours.params,
    resize=(".*",),
    resize_method=method,
  )
  got = made.parts.model.apply(
    {"params": jax.tree.map(jnp.asarray, params)},
    "image",
    jnp.asarray(pictures, jnp.uint8),
    train=False,
    method="encode",
  )
  close(got.x, _hidden_states(model, pictures))


def test_a_variant_that_models_here_cannot_be_is_refused(pair):
  with pytest.raises(errors.UserError, match="qkv_bias=False"):
    pair(
      "Dinov2Model",
      "Dinov2Config",
      **SIZES,
      image_size=16,
      patch_size=4,
      qkv_bias=False,
    )
