"""ViT against `transformers`."""

import jax.numpy as jnp
import numpy as np
import pytest

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


@pytest.fixture(
  scope="module", params=["ViTModel", "ViTForImageClassification"]
)
def model(request, pair, tiny):
  labels = {} if request.param == "ViTModel" else {"num_labels": 5}
  return pair(
    request.param, "ViTConfig", **tiny, image_size=16, patch_size=8, **labels
  )


def _pixels(pictures):
  """As `ViTImageProcessor` makes them: -1..1, channels first."""
  return ((pictures / 255 - 0.5) / 0.5).astype(np.float32).transpose(0, 3, 1, 2)


def test_hidden_states_pooled_and_logits_are_theirs(model, pictures, close):
  expected = model.run(pixel_values=_pixels(pictures))
  got = model.apply("encode", "image", jnp.asarray(pictures), train=False)
  pooled = model.apply("pool", "image", got)
  if "logits" in expected:
    close(model.apply("head", "label", pooled), expected["logits"])
  else:
    close(got.x, expected["last_hidden_state"])
    close(pooled, expected["pooler_output"])


def test_export_gives_the_same_numbers(model, pictures, there_and_back):
  _, again = there_and_back(model)
  pixels = model.torch.tensor(_pixels(pictures))
  with model.torch.no_grad():
    got, expected = again(pixels)[0], model.theirs(pixels)[0]
  np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
