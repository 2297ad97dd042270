import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.models.layers.convolution import ConvPatches

KEY = jax.random.key(0)


def convolved(x, kernel):
  """Stride 2, 3x3, one row and column of zeros after the last."""
  h, w, _ = x.shape
  x = np.pad(np.asarray(x, np.float64), ((0, 1), (0, 1), (0, 0)))
  out = np.zeros((h // 2, w // 2, kernel.shape[3]))
  for row in range(h // 2):
    for column in range(w // 2):
      box = x[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
      out[row, column] = np.einsum("yxc,yxcd->d", box, kernel)
  return out


def test_features_are_those_of_convolution_norm_and_gelu(
  by_hand, randomized, rng
):
  pixels = rng.normal(size=(2, 8, 4, 3)).astype(np.float32)
  module = ConvPatches(4, 16)
  params = randomized(module, jnp.asarray(pixels))

  got = module.apply({"params": params}, jnp.asarray(pixels))

  for image, features in zip(pixels, got, strict=True):
    x = image
    for i in range(2):
      x = convolved(x, np.asarray(params[f"conv_{i}"]["kernel"], np.float64))
      x = by_hand.gelu(by_hand.layer_norm(params[f"norm_{i}"], x))
    np.testing.assert_allclose(features, x.reshape(2, 8), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("patch_size", "embed_dim"), [(6, 12), (8, 12)])
def test_sizes_that_do_not_halve_are_refused(patch_size, embed_dim):
  module = ConvPatches(patch_size, embed_dim)
  with pytest.raises(errors.UserError, match=f"patch_size={patch_size}"):
    jax.eval_shape(module.init, KEY, jnp.zeros((1, 24, 24, 3)))
