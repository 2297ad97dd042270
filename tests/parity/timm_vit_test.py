"""ViT against timm, which also reads the npz files of AugReg."""

import functools
import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
D, M, K, L, P, CLASSES = 128, 96, 2, 2, 8, 5
CELLS = (16 // P) ** 2


@pytest.fixture(scope="module")
def timm(peer):
  return peer("timm")


def _model(timm, **more):
  return timm.models.vision_transformer.VisionTransformer(
    img_size=16,
    patch_size=P,
    embed_dim=D,
    depth=L,
    num_heads=K,
    mlp_ratio=M / D,
    num_classes=CLASSES,
    **more,
  ).eval()


def _compare(model, path, pictures, close):
  import torch

  from mmjax.build import converting

  loaded = converting.load(path)
  apply = functools.partial(
    loaded.experiment.parts.model.apply, {"params": loaded.params}
  )
  pixels = ((pictures / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2)
  with torch.no_grad():
    given = torch.tensor(pixels.astype(np.float32))
    features, logits = model.forward_features(given), model(given)
  got = apply("image", jnp.asarray(pictures), train=False, method="encode")
  close(got.x, features.numpy())
  pooled = apply("image", got, method="pool")
  close(apply("label", pooled, method="head"), logits.numpy())


def test_timm_is_read(timm, pictures, close, tmp_path):
  import torch

  torch.manual_seed(0)
  model = _model(timm)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(0.3 * torch.randn_like(parameter))
  arrays = {n: x.numpy().copy() for n, x in model.state_dict().items()}
  safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
  config = {"architecture": "vit_own", "global_pool": "token"}
  (tmp_path / "config.json").write_text(json.dumps(config))
  _compare(model, tmp_path, pictures, close)


def test_augreg_is_read(timm, pictures, close, tmp_path):
  import torch

  rng = np.random.default_rng(0)
  shapes = {
    "cls": (1, 1, D),
    "embedding/kernel": (P, P, 3, D),
    "embedding/bias": (D,),
    "Transformer/posembed_input/pos_embedding": (1, 1 + CELLS, D),
    "Transformer/encoder_norm/scale": (D,),
    "Transformer/encoder_norm/bias": (D,),
    "head/kernel": (D, CLASSES),
    "head/bias": (CLASSES,),
  }
  for i in range(L):
    block = f"Transformer/encoderblock_{i}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    for name in ("query", "key", "value"):
      shapes[f"{attention}/{name}/kernel"] = (D, K, D // K)
      shapes[f"{attention}/{name}/bias"] = (K, D // K)
    shapes[f"{attention}/out/kernel"] = (K, D // K, D)
    shapes[f"{attention}/out/bias"] = (D,)
    for name, size in (("Dense_0", (D, M)), ("Dense_1", (M, D))):
      shapes[f"{block}/MlpBlock_3/{name}/kernel"] = size
      shapes[f"{block}/MlpBlock_3/{name}/bias"] = size[1:]
    for name in ("LayerNorm_0", "LayerNorm_2"):
      shapes[f"{block}/{name}/scale"] = shapes[f"{block}/{name}/bias"] = (D,)
  arrays = {n: 0.3 * rng.normal(size=s) for n, s in shapes.items()}
  path = tmp_path / "x.npz"
  np.savez(path, **{n: x.astype(np.float32) for n, x in arrays.items()})
  # As Flax had it by default.
  act = functools.partial(torch.nn.GELU, approximate="tanh")
  model = _model(timm, act_layer=act)
  model.load_pretrained(str(path))
  _compare(model, path, pictures, close)
