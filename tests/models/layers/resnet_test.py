import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors, precision, trees
from mmjax.models.layers.resnet import BottleneckUnit, ResNet

KEY = jax.random.key(0)
GROUPS = 32


def _standardized(kernel):
  kernel = np.asarray(kernel, np.float64)
  out = np.empty_like(kernel)
  for d in range(kernel.shape[3]):
    weights = kernel[..., d]
    out[..., d] = (weights - weights.mean()) / (weights.std() + 1e-5)
  return out


def _windows(x, side, stride, fill):
  """Yields (row, column, window), padded as TensorFlow's "SAME"."""
  pads = []
  for length in x.shape[:2]:
    total = max((-(-length // stride) - 1) * stride + side - length, 0)
    pads.append((total // 2, total - total // 2))
  padded = np.pad(x, (*pads, (0, 0)), constant_values=fill)
  for row in range(-(-x.shape[0] // stride)):
    for column in range(-(-x.shape[1] // stride)):
      top, left = row * stride, column * stride
      yield row, column, padded[top : top + side, left : left + side]


def _conv(params, x, stride=1):
  kernel = _standardized(params["kernel"])
  shape = (-(-x.shape[0] // stride), -(-x.shape[1] // stride), kernel.shape[3])
  out = np.zeros(shape)
  for row, column, window in _windows(x, kernel.shape[0], stride, 0.0):
    out[row, column] = np.einsum("yxc,yxcd->d", window, kernel)
  return out


def _max_pool(x):
  out = np.zeros((-(-x.shape[0] // 2), -(-x.shape[1] // 2), x.shape[2]))
  for row, column, window in _windows(x, 3, 2, -np.inf):
    out[row, column] = window.max(axis=(0, 1))
  return out


def _norm(params, x):
  out = np.empty_like(x)
  for channels in np.split(np.arange(x.shape[2]), GROUPS):
    group = x[..., channels]
    out[..., channels] = (group - group.mean()) / np.sqrt(group.var() + 1e-6)
  return out * np.asarray(params["scale"]) + np.asarray(params["bias"])


def _relu(x):
  return np.maximum(x, 0)


def _unit(params, x, stride):
  y = _relu(_norm(params["norm_0"], _conv(params["conv_0"], x)))
  y = _relu(_norm(params["norm_1"], _conv(params["conv_1"], y, stride)))
  y = _norm(params["norm_2"], _conv(params["conv_2"], y))
  if "conv_shortcut" in params:
    x = _conv(params["conv_shortcut"], x, stride)
    x = _norm(params["norm_shortcut"], x)
  return _relu(x + y)


@pytest.fixture(scope="module")
def features(randomized):
  """Pixels, parameters, their features in stages (2, 1), what made them."""
  rng = np.random.default_rng(5)
  pixels = rng.normal(size=(2, 16, 24, 3)).astype(np.float32)
  module = ResNet((2, 1), width=32)
  params = randomized(module, jnp.asarray(pixels))
  run = jax.jit(lambda params, x: module.apply({"params": params}, x))
  return pixels, params, run(params, jnp.asarray(pixels)), run


def test_features_are_those_of_root_and_units_by_hand(features):
  pixels, params, got, _ = features
  assert got.shape == (2, 2, 3, 256)
  for image, out in zip(pixels, got, strict=True):
    x = _relu(_norm(params["root_norm"], _conv(params["root_conv"], image, 2)))
    x = _max_pool(x)
    x = _unit(params["stage_0_unit_0"], x, 1)
    x = _unit(params["stage_0_unit_1"], x, 1)
    x = _unit(params["stage_1_unit_0"], x, 2)
    np.testing.assert_allclose(out, x, rtol=1e-3, atol=1e-4)


def test_only_units_that_change_shape_project_their_shortcut(features):
  _, params, _, _ = features
  units = {n: "conv_shortcut" in p for n, p in params.items() if "unit" in n}
  assert units == {
    "stage_0_unit_0": True,
    "stage_0_unit_1": False,
    "stage_1_unit_0": True,
  }


def test_a_fresh_unit_passes_on_what_is_not_negative(rng):
  x = jnp.asarray(np.abs(rng.normal(size=(1, 4, 4, 128))), jnp.float32)
  unit = BottleneckUnit(32)
  got = jax.jit(lambda x: unit.init_with_output(KEY, x)[0])(x)
  np.testing.assert_array_equal(got, x)


def test_scale_of_the_weights_does_not_matter(features):
  pixels, params, got, run = features
  larger = trees.map_names(
    lambda name, x: 7 * x + 1 if name.endswith("kernel") else x, params
  )
  other = run(larger, jnp.asarray(pixels))
  np.testing.assert_allclose(other, got, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize(
  ("stages", "width", "message"),
  [
    ((), 64, r"stages=\(\)"),
    ((2, 0), 64, r"stages=\(2, 0\)"),
    ((1,), 48, "width 48 does not split into 32 groups"),
  ],
)
def test_what_makes_no_resnet_is_refused(stages, width, message):
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(ResNet(stages, width).init, KEY, jnp.zeros((1, 16, 16, 3)))


def test_parameters_are_float32_and_carry_axis_names():
  module = ResNet((1,), 32, precision.POLICIES["bfloat16"])
  out, variables = jax.eval_shape(
    module.init_with_output, KEY, jnp.zeros((1, 8, 8, 3))
  )
  assert out.dtype == jnp.bfloat16
  params = variables["params"]
  assert params["root_conv"]["kernel"].names == (None, None, None, axes.MLP)
  assert params["root_norm"]["scale"].names == (axes.MLP,)
  leaves = jax.tree.leaves(nn.meta.unbox(params))
  assert all(leaf.dtype == jnp.float32 for leaf in leaves)
