import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import batch as batch_lib
from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo
from mmjax.objectives import mixed_pictures
from mmjax.objectives.classification import Classification

B, H, W, C = 6, 8, 12, 5
COUNTS = np.array([True, True, False, True, True, True])


@pytest.fixture
def images(rng):
  return rng.integers(0, 256, (B, H, W, 3)).astype(np.uint8)


def draws(images, count=40, **alphas):
  keys = jax.random.split(jax.random.key(0), count)
  run = jax.jit(
    lambda key: mixed_pictures.draw(
      key, jnp.asarray(images), jnp.asarray(COUNTS), **alphas
    )
  )  # One compilation; beta is slow to compile.
  return [jax.device_get(run(key)) for key in keys]


def test_mixup_is_the_weighted_mean_of_two(images):
  shares = []
  for made in draws(images, mixup=0.4, cutmix=0.0):
    assert made.images.dtype == np.uint8
    for i in range(B):
      share = float(made.share[i])
      if i in (2, 3):  # One does not count, so neither is mixed.
        np.testing.assert_array_equal(made.images[i], images[i])
        assert share == 1.0
        continue
      shares.append(share)
      want = share * images[i].astype(float)
      want += (1 - share) * images[B - 1 - i]
      assert np.abs(made.images[i] - want).max() < 0.51
  # Beta(0.4, 0.4): mean 1/2, variance 1 / (4 (2 a + 1)).
  shares = np.array(shares[::4])
  assert shares.mean() == pytest.approx(0.5, abs=0.2)
  assert shares.var() == pytest.approx(1 / 7.2, rel=0.4)


def test_cutmix_takes_a_rectangle_of_the_partner(images):
  shares = []
  for made in draws(images, mixup=0.0, cutmix=1.0):
    for i in (0, 1, 4, 5):
      other = images[B - 1 - i]
      taken = np.all(made.images[i] == other, axis=-1)
      own = np.all(made.images[i] == images[i], axis=-1)
      assert np.all(taken | own)
      rows, columns = taken.any(axis=1), taken.any(axis=0)
      np.testing.assert_array_equal(taken, rows[:, None] & columns[None])
      for line in (rows, columns):  # Without a gap.
        assert np.count_nonzero(np.diff(np.flatnonzero(line)) > 1) == 0
      share = 1 - taken.sum() / (H * W)
      np.testing.assert_allclose(made.share[i], share, atol=1e-6)
    shares.append(share)
    np.testing.assert_array_equal(made.images[2:4], images[2:4])
  assert np.std(shares) > 0.1


def test_with_both_one_is_drawn_for_each_batch(images):
  kinds = []
  for made in draws(images, mixup=1.0, cutmix=1.0):
    whole = np.all(
      (made.images[0] == images[0]) | (made.images[0] == images[-1])
    )
    kinds.append(bool(whole))
  assert 8 < sum(kinds) < 32


class Linear:
  """A model whose logits are linear in the mean colour of a picture."""

  def __init__(self, images, kernel):
    self.images, self.kernel = images, kernel

  def replaced(self, *, image):
    return Linear(image, self.kernel)

  def __call__(self, method, *args, view="clean"):
    assert view == "clean"
    if method == "pool":
      return self.images.astype(jnp.float32).mean(axis=(1, 2)) / 255
    return args[-1] @ self.kernel


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_targets_are_mixed_as_the_pictures_are(
  images, rng, by_hand, several, train
):
  kernel = 5 * rng.normal(size=(3, C)).astype(np.float32)
  labels = np.array([0, 1, 2, 3, 4, 0], np.int32)
  if several:
    labels = rng.integers(0, 2, (B, C)).astype(np.float32)
  batch = {
    "image": jnp.asarray(images),
    "label": jnp.asarray(labels),
    "example_mask": jnp.asarray(COUNTS),
  }
  objective = Classification(
    num_classes=C, mixup=1.0, multi_label=several, smoothing=0.0
  )
  key = jax.random.key(3)

  @jax.jit
  def run(batch):
    apply = Linear(batch["image"], kernel)
    mixed = mixed_pictures.draw(
      key, batch["image"], batch["example_mask"], mixup=1.0, cutmix=0.0
    )
    return objective(apply, batch, rng=key, train=train)[0], mixed

  loss, mixed = run(batch)
  shares = np.asarray(mixed.share) if train else np.ones(B)
  assert shares[0] != 1 or not train
  seen = np.asarray(mixed.images) if train else images
  total = 0.0
  for i in np.flatnonzero(COUNTS):
    logits = seen[i].astype(float).mean(axis=(0, 1)) / 255 @ kernel
    for j, share in ((i, shares[i]), (B - 1 - i, 1 - shares[i])):
      if several:
        p = 1 / (1 + np.exp(-logits))
        y = labels[j]
        total -= share * np.sum(y * np.log(p) + (1 - y) * np.log(1 - p))
      else:
        total += share * by_hand.cross_entropy(logits, labels[j])
  np.testing.assert_allclose(loss.total, total, rtol=1e-4)
  assert loss.weight == 5 * (C if several else 1)


def test_absent_pictures_reach_no_other_one(images):
  """Nor do labels that are not there."""
  batch = {
    "image": jnp.asarray(images),
    "label": jnp.arange(B, dtype=jnp.int32) % C,
    "image_present": jnp.asarray(COUNTS),
  }
  objective = Classification(num_classes=C, mixup=1.0, cutmix=1.0)
  kernel = np.eye(3, C, dtype=np.float32)

  @jax.jit
  def run(batch):
    loss, metrics = objective(
      Linear(batch["image"], kernel), batch, rng=jax.random.key(0), train=True
    )
    return loss, metrics["accuracy"]

  junk = {
    **batch,
    "image": batch["image"].at[2].set(7),
    "label": batch["label"].at[2].set(1),
  }
  got, want = jax.device_get((run(junk), run(batch)))
  assert got == want and want[0].weight == 5


def test_what_cannot_be_mixed_is_refused():
  info = ModelInfo(embed_dim=4)
  for fields in (
    dict(modality="text"),
    dict(given=("text",)),
  ):
    with pytest.raises(errors.UserError, match="mix pictures"):
      Classification(num_classes=C, mixup=0.2, **fields)
  with pytest.raises(errors.UserError, match="cutmix=-1.0, expected 0 or more"):
    Classification(num_classes=C, cutmix=-1.0)
  bag = {
    "image": np.zeros((2, 4, 12), np.uint8),
    "label": np.zeros(2, np.int32),
  }
  batch_lib.check_batch(bag, Classification(num_classes=C).fields(info))
  with pytest.raises(errors.UserError, match=r"image: expected uint8\[b, \?, "):
    batch_lib.check_batch(
      bag, Classification(num_classes=C, mixup=0.2).fields(info)
    )
