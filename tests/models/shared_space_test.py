import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors, precision, trees
from mmjax.models.shared_space import SharedSpace

KEY = jax.random.key(0)
SPACE = SharedSpace(5, ("image", "text"))


def _call_all(module, pooled):
  return {name: module(name, x) for name, x in pooled.items()}


@pytest.fixture(scope="module")
def pooled():
  rng = np.random.default_rng(6)
  return {  # Encoders may differ in width.
    "image": jnp.asarray(rng.normal(size=(3, 16)), jnp.float32),
    "text": jnp.asarray(rng.normal(size=(3, 12)), jnp.float32),
  }


@pytest.fixture(scope="module")
def variables(pooled):
  return nn.meta.unbox(SPACE.init(KEY, pooled, method=_call_all))


def _scale(log_scale):
  params = {"log_scale": jnp.asarray(log_scale, jnp.float32)}
  return SPACE.apply({"params": params}, method="scale")


@pytest.mark.parametrize("modality", ["image", "text"])
def test_a_projection_is_linear_then_of_unit_length(
  pooled, variables, modality
):
  got = SPACE.apply(variables, modality, pooled[modality])
  kernel = variables["params"][f"projections_{modality}"]["kernel"]
  x = np.asarray(pooled[modality], np.float64) @ np.asarray(kernel)
  for i in range(3):
    expected = x[i] / math.sqrt(sum(v**2 for v in x[i]))
    np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-6)


def test_parameters_are_a_kernel_a_modality_and_a_scale(variables):
  assert trees.num_params(variables["params"]) == 5 * 16 + 5 * 12 + 1


def test_a_vector_of_zeros_stays_finite_with_its_gradient(variables):
  def total(x):
    return jnp.sum(SPACE.apply(variables, "image", x))

  value, grad = jax.value_and_grad(total)(jnp.zeros((1, 16)))
  assert value == 0 and np.all(np.isfinite(grad))


def test_bfloat16_features_give_unit_length_in_float32(pooled, variables):
  space = SPACE.clone(precision=precision.POLICIES["bfloat16"])
  got = space.apply(variables, "image", pooled["image"].astype(jnp.bfloat16))
  assert got.dtype == jnp.float32
  np.testing.assert_allclose(
    np.linalg.norm(np.asarray(got, np.float64), axis=1), 1.0, rtol=1e-6
  )


def test_the_scale_starts_at_that_of_clip(variables):
  got = SPACE.apply(variables, method="scale")
  np.testing.assert_allclose(got, 1 / 0.07, rtol=1e-6)


@pytest.mark.parametrize(
  ("log_scale", "expected"),
  [(-3.0, 1.0), (0.0, 1.0), (2.0, math.exp(2.0)), (4.7, 100.0), (50.0, 100.0)],
)
def test_the_scale_is_clamped_to_1_and_100(log_scale, expected):
  np.testing.assert_allclose(_scale(log_scale), expected, rtol=1e-5)


def test_the_gradient_of_the_scale_is_the_scale():
  np.testing.assert_allclose(jax.grad(_scale)(2.0), math.exp(2.0), rtol=1e-5)


def test_parameters_carry_axis_names(pooled):
  boxed = jax.eval_shape(lambda: SPACE.init(KEY, pooled, method=_call_all))
  kernel = boxed["params"]["projections_image"]["kernel"]
  assert kernel.names == (axes.EMBED, axes.SHARED)


def test_a_bias_is_there_if_asked_for(pooled, variables):
  assert set(SPACE.apply(variables, method="temperature")) == {"scale"}
  space = SPACE.clone(init_scale=10.0, init_bias=-10.0)
  params = nn.meta.unbox(space.init(KEY, pooled, method=_call_all))
  got = space.apply(params, method="temperature")
  np.testing.assert_allclose((got["scale"], got["bias"]), (10, -10), rtol=1e-6)
  assert params["params"]["logit_bias"] == -10.0


def test_a_scale_without_a_limit_is_what_it_is():
  space = SPACE.clone(max_scale=0.0)
  for log_scale in (-1.0, 4.8):
    params = {"log_scale": jnp.float32(log_scale)}
    got = space.apply({"params": params}, method="scale")
    np.testing.assert_allclose(got, math.exp(log_scale), rtol=1e-6)


def test_a_modality_may_have_a_bias_or_no_projection(pooled):
  space = SharedSpace(
    16, ("image", "text"), kinds={"image": "none", "text": "affine"}
  )
  params = nn.meta.unbox(space.init(KEY, pooled, method=_call_all))["params"]
  assert "projections_image" not in params
  affine = params["projections_text"]
  affine = {**affine, "bias": jnp.arange(16.0)}
  params = {**params, "projections_text": affine}
  got = space.apply({"params": params}, pooled, method=_call_all)
  x = np.asarray(pooled["text"], np.float64) @ np.asarray(affine["kernel"])
  for name, expected in (
    ("image", np.asarray(pooled["image"], np.float64)),
    ("text", x + np.arange(16)),
  ):
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(got[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
  ("dim", "kinds", "message"),
  [
    (5, {"image": "none"}, "16 channels and no projection to the 5"),
    (5, {"image": "linaer"}, "Did you mean 'linear'"),
    (5, {"imag": "none"}, "Did you mean 'image'"),
  ],
)
def test_wrong_projections_are_refused(pooled, dim, kinds, message):
  space = SharedSpace(dim, ("image", "text"), kinds=kinds)
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(lambda: space.init(KEY, pooled, method=_call_all))


def test_an_unknown_modality_is_refused_with_the_nearest_name(variables):
  with pytest.raises(errors.UserError, match="Did you mean 'image'"):
    SPACE.apply(variables, "images", jnp.ones((1, 16)))
