import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors, trees
from mmjax.models.encoders.hybrid import hybrid
from mmjax.models.layers.hidden import HIDDEN
from mmjax.models.layers.resnet import ResNet
from mmjax.models.variants import SIZES

KEY = jax.random.key(0)
SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
SMALL = dict(size=SIZE, stages=(1,), width_factor=0.5)


@pytest.fixture(scope="module")
def image():
  rng = np.random.default_rng(3)
  return jnp.asarray(rng.integers(0, 256, (2, 16, 16, 3)), jnp.uint8)


@pytest.fixture(scope="module")
def hidden():
  return jnp.asarray([[0, 3], [2, 1]], jnp.int32)


@pytest.fixture(scope="module")
def setting(image, randomized):
  encoder = hybrid(image_size=16, patch_size=8, **SMALL)
  return encoder, randomized(encoder, image, train=False)


def _squares(image, side):
  """Squares of a picture, row by row, flattened."""
  rows, columns = (length // side for length in image.shape[:2])
  return np.stack(
    [
      image[r * side : (r + 1) * side, c * side : (c + 1) * side].reshape(-1)
      for r in range(rows)
      for c in range(columns)
    ]
  )


def test_cells_of_the_map_are_projected_with_positions_then_mixed(
  setting, image, by_hand
):
  encoder, params = setting

  @jax.jit
  def run(params, image):
    backbone = {"params": params["stem"]["backbone"]}
    return (
      encoder.apply({"params": params}, image, train=False),
      # `resnet_test.py` has the map by hand.
      ResNet((1,), 32).apply(backbone, image / 127.5 - 1.0),
    )

  got, features = run(params, image)
  assert features.shape == (2, 4, 4, 128)
  for i in range(2):
    x = by_hand.linear(
      params["stem"]["patches"], _squares(np.asarray(features[i]), 2)
    )
    x += np.asarray(params["stem"]["positions"]["table"])
    expected = by_hand.stack(params["stack"], x, np.ones(4, bool))
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("how", HIDDEN)
def test_nothing_of_hidden_patches_is_seen(setting, image, hidden, how):
  encoder = hybrid(image_size=16, patch_size=8, hidden=how, **SMALL)
  params = setting[1]
  if how == "drop":
    stem = {k: v for k, v in params["stem"].items() if k != "mask_token"}
    params = {**params, "stem": stem}
  run = jax.jit(
    lambda x: encoder.apply({"params": params}, x, hidden=hidden, train=False)
  )
  other = np.array(image)
  for row, patches in zip(other, np.asarray(hidden), strict=True):
    for patch in patches:
      y, x = 8 * (patch // 2), 8 * (patch % 2)
      row[y : y + 8, x : x + 8] = 7
  got, same = run(image), run(jnp.asarray(other))
  np.testing.assert_array_equal(got.x, same.x)
  seen = np.array(image)
  seen[:, :8, 8:] = 7  # Patch 1: visible in the first picture only.
  changed = run(jnp.asarray(seen)).x
  assert np.abs(changed[0] - got.x[0]).max() > 1e-3
  np.testing.assert_array_equal(changed[1], got.x[1])
  if how == "drop":
    np.testing.assert_array_equal(got.positions, [[1, 2], [0, 3]])


# As timm counts vit_base_r50_s16_384, vit_small_r26_s32_224 and
# vit_large_r50_s32_224, with a head of 1000 classes: 98.95, 36.43 and 328.99
# million. Steiner et al. 2021, table 2, have 36.6 for the second: with the
# 384^2 + 384 of a further layer before the head.
PUBLISHED = {
  ("B", 384, (3, 4, 9)): 98_950_952,
  ("S", 224, (2, 2, 2, 2)): 36_431_912,
  ("L", 224, (3, 4, 6, 3)): 328_994_856,
}


def _resnet_by_hand(stages):
  """Weights of the convolutions; scale and bias of the norms."""
  total, channels = 7 * 7 * 3 * 64 + 2 * 64, 64
  for i, num_units in enumerate(stages):
    width = 64 * 2**i
    total += channels * 4 * width + 2 * 4 * width  # Shortcut of the first.
    for _ in range(num_units):
      total += channels * width + 9 * width**2 + width * 4 * width
      total += 2 * (width + width + 4 * width)
      channels = 4 * width
  return total, channels


@pytest.mark.parametrize(("size", "pixels", "stages"), PUBLISHED)
def test_number_of_parameters_of_published_hybrids(size, pixels, stages):
  encoder = hybrid(
    image_size=pixels,
    size=size,
    stages=stages,
    pool="cls",
    hidden="drop",
    stack=dict(scan=True),
  )
  image = jax.ShapeDtypeStruct((1, pixels, pixels, 3), jnp.uint8)
  got = trees.num_params(
    jax.eval_shape(lambda x: encoder.init(KEY, x, train=False), image)
  )
  d, layers = SIZES[size].embed_dim, SIZES[size].num_layers
  resnet, channels = _resnet_by_hand(stages)
  num_tokens = (pixels // (4 * 2 ** (len(stages) - 1))) ** 2
  published = PUBLISHED[size, pixels, stages]
  assert published == (
    resnet
    + layers * (12 * d**2 + 13 * d)
    + 2 * d  # Norm.
    + (channels + 1) * d  # Patches.
    + (num_tokens + 1) * d  # Positions, one of them of CLS.
    + d  # CLS.
    + 1000 * (d + 1)  # Head.
  )
  # Ours is without head, and CLS has no position.
  assert got == published - 1000 * (d + 1) - d


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(image_size=64, patch_size=24), "cells of 16 pixels, of which patch"),
    (dict(image_size=40), "image_size=40 is no multiple of patch_size=16"),
    (dict(image_size=64, image_grid=(8, 8)), "8x8; the encoder's is 4x4"),
  ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    hybrid(**fields)


def test_bags_of_patches_are_refused():
  encoder = hybrid(image_size=16, **SMALL)
  bag = jnp.zeros((1, 4, 48), jnp.uint8)
  where = jnp.zeros((1, 4, 2), jnp.int32)
  with pytest.raises(errors.UserError, match="Convolutions take whole images"):
    jax.eval_shape(
      lambda: encoder.init(KEY, bag, coordinates=where, train=False)
    )
