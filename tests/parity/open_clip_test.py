"""CLIP of open_clip's own files against open_clip."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
EOS = 50  # The highest id of a text.


@pytest.fixture(scope="module")
def open_clip(peer):
  return peer("open_clip")


@pytest.fixture(params=[False, True], ids=["gelu", "quick_gelu"])
def config(request, vocab_size):
  return dict(
    embed_dim=12,
    quick_gelu=request.param,
    vision_cfg=dict(
      image_size=16, patch_size=8, width=24, head_width=8, layers=1
    ),
    text_cfg=dict(
      context_length=10,
      vocab_size=vocab_size - 2,
      width=16,
      heads=2,
      layers=2,
      mlp_ratio=2.0,
    ),
  )


def test_features_and_logits_are_theirs(
  open_clip, config, vocabulary, texts, pictures, close, tmp_path
):
  import torch

  from mmjax.build import converting

  torch.manual_seed(0)
  model = open_clip.model.CLIP(**config).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
    model.logit_scale.fill_(1.5)
  arrays = {n: x.numpy().copy() for n, x in model.state_dict().items()}
  path = tmp_path / "open_clip_model.safetensors"
  safetensors.numpy.save_file(arrays, path)
  said = {"model_cfg": config, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3]}}
  (tmp_path / "open_clip_config.json").write_text(json.dumps(said))
  (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")

  ids, mask = np.minimum(texts["ids"], EOS - 1)[:2], texts["mask"][:2]
  ids[[0, 1], mask.sum(axis=1) - 1] = EOS
  std = np.array([0.26862954, 0.26130258, 0.27577711])
  pixels = (pictures / 255 - np.array([0.5, 0.4, 0.3])) / std
  pixels = pixels.transpose(0, 3, 1, 2).astype(np.float32)
  with torch.no_grad():
    images, words, scale = model(torch.tensor(pixels), torch.tensor(ids))

  loaded = converting.load(path)
  apply = functools.partial(
    loaded.experiment.parts.model.apply, {"params": loaded.params}
  )
  got = apply("image", jnp.asarray(pictures), train=False, method="encode")
  close(apply("image", got, method="project"), images.numpy())
  got = apply(
    "text",
    jnp.asarray(ids),
    mask=jnp.asarray(mask),
    train=False,
    method="encode",
  )
  close(apply("text", got, method="project"), words.numpy())
  np.testing.assert_allclose(
    apply(method="temperature")["scale"], scale.item(), rtol=1e-6
  )
