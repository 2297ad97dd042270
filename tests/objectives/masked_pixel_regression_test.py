import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo, Objective
from mmjax.core.sequence import Sequence
from mmjax.objectives.masked_pixel_regression import MaskedPixelRegression

D, Q = 4, 12
INFO = ModelInfo(embed_dim=D, patch_dims={"image": Q, "text": 0})
KEY = jax.random.key(0)


@pytest.fixture
def case(rng):
  """A batch, the encoded picture behind CLS, patches, and the head."""
  batch = {
    "image_hidden": jnp.asarray([[1, 3], [2, 0], [0, 1]], jnp.int32),
    "example_mask": jnp.asarray([True, True, False]),
  }
  x = rng.normal(size=(3, 1 + 4, D)).astype(np.float32)
  sequence = Sequence(
    jnp.asarray(x), jnp.ones((3, 5), bool), num_prefix=1, num_content=4
  )
  patches = rng.integers(0, 256, (3, 4, Q), dtype=np.uint8)
  patches[1, 2] = 77  # Of one colour.
  kernel = rng.normal(size=(D, Q)).astype(np.float32)
  return batch, sequence, patches, kernel


def _loss(table, case, objective):
  batch, sequence, patches, kernel = case
  apply = table(
    {
      ("fuse", ("image", "text"), "masked"): {"image": sequence},
      ("encode", "image", "masked"): sequence,
      ("patches", "image", "clean"): jnp.asarray(patches),
      ("head", "pixels", "clean"): lambda x: x @ kernel,
    }
  )
  return objective(apply, batch, rng=KEY, train=True)[0]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("given", [("text",), ()])
def test_the_loss_is_that_of_the_hidden_patches(case, table, given, normalize):
  batch, sequence, patches, kernel = case
  total, count = 0.0, 0
  for i in range(2):  # The third example is filler.
    for j in np.asarray(batch["image_hidden"][i]):
      target = patches[i, j].astype(np.float64)
      if normalize and target.std() == 0:
        continue
      if normalize:
        target = (target - target.mean()) / target.std()
      else:
        target = target / 255 * 2 - 1
      made = np.asarray(sequence.x[i, 1 + j], np.float64) @ kernel
      total += np.mean((made - target) ** 2)
      count += 1
  objective = MaskedPixelRegression(given=given, normalize=normalize)
  loss = _loss(table, case, objective)
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == count == (3 if normalize else 4)


@pytest.mark.parametrize("normalize", [True, False])
def test_the_target_may_be_that_of_the_code_of_mae(case, table, normalize):
  batch, sequence, patches, kernel = case
  mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
  total = 0.0
  for i in range(2):
    for j in np.asarray(batch["image_hidden"][i]):
      target = patches[i, j].reshape(-1, 3) / 255
      target = ((target - mean) / std).reshape(-1)
      if normalize:
        variance = target.var(ddof=1)
        target = (target - target.mean()) / np.sqrt(variance + 0.1)
      made = np.asarray(sequence.x[i, 1 + j], np.float64) @ kernel
      total += np.mean((made - target) ** 2)
  objective = MaskedPixelRegression(
    given=(),
    normalize=normalize,
    pixel_mean=mean,
    pixel_std=std,
    unbiased=True,
    epsilon=0.1,
  )
  loss = _loss(table, case, objective)
  np.testing.assert_allclose(loss.total, total, rtol=1e-5)
  assert loss.weight == 4  # That of one colour too.


def test_each_channel_has_a_mean_and_a_deviation():
  with pytest.raises(errors.UserError, match="each channel has one of both"):
    MaskedPixelRegression(pixel_mean=(0.5, 0.5, 0.5))


def test_chance_is_the_loss_of_a_head_of_zeros(case, table):
  batch, sequence, patches, kernel = case
  loss = _loss(
    table,
    (batch, sequence, patches, np.zeros_like(kernel)),
    MaskedPixelRegression(),
  )
  chance = MaskedPixelRegression().chance(INFO, 3)
  np.testing.assert_allclose(chance, loss.mean, rtol=1e-5)
  assert MaskedPixelRegression(normalize=False).chance(INFO, 3) is None


def test_nan_where_nothing_counts_reaches_no_gradient(case, table):
  batch, sequence, patches, kernel = case
  patches = patches.astype(np.float32)
  patches[2] = np.nan  # The filler.

  def loss(x):
    new = (batch, sequence.replace(x=x), patches, kernel)
    return _loss(table, new, MaskedPixelRegression()).total

  grad = jax.grad(loss)(sequence.x)
  assert np.isfinite(grad).all() and np.any(grad[0]) and not np.any(grad[2])


def test_it_declares_its_fields_and_its_head():
  assert isinstance(MaskedPixelRegression(), Objective)
  assert set(MaskedPixelRegression(given=("text",)).fields(INFO)) == {
    "image",
    "text",
    "image_hidden",
  }
  assert MaskedPixelRegression().heads(INFO) == {
    "pixels": {"name": "linear", "num_classes": Q}
  }
  with pytest.raises(errors.UserError, match="'text' into patches.*'image'"):
    MaskedPixelRegression(modality="text").heads(INFO)
