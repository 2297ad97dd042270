import math

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms import image, rand_augment, video

SIZE = 33  # Odd: one pixel is the middle.


@pytest.fixture
def smooth():
  """Colours that change slowly, so that sampling between pixels is exact."""
  y, x = np.mgrid[:SIZE, :SIZE]
  pixels = np.stack([3 * x + 60, 3 * y + 70, 200 - 2 * x - y], axis=-1)
  return pixels.astype(np.uint8)


def change(pixels, name, strength):
  made = rand_augment.CHANGES[name](Image.fromarray(pixels), strength)
  assert made.size == (pixels.shape[1], pixels.shape[0])
  return np.asarray(made)


def luma(x):
  return x @ [0.299, 0.587, 0.114]


# Where a pixel of the result comes from, relative to the middle of pixels.
WARPS = {
  "shear_x": lambda x, y, s: (x + 0.3 * s * (y + 0.5), y),
  "shear_y": lambda x, y, s: (x, y + 0.3 * s * (x + 0.5)),
  "translate_x": lambda x, y, s: (x + 150 / 331 * s * SIZE, y),
  "translate_y": lambda x, y, s: (x, y + 150 / 331 * s * SIZE),
}


def turned(x, y, s):
  angle, middle = math.radians(30 * s), (SIZE - 1) / 2
  x, y = x - middle, y - middle
  cos, sin = math.cos(angle), math.sin(angle)
  return cos * x - sin * y + middle, sin * x + cos * y + middle


@pytest.mark.parametrize("strength", [-0.5, 1.0])
@pytest.mark.parametrize("name", [*WARPS, "rotate"])
def test_warps_take_each_pixel_from_its_place(smooth, name, strength):
  made = change(smooth, name, strength)
  y, x = np.mgrid[:SIZE, :SIZE]
  from_x, from_y = WARPS.get(name, turned)(x, y, strength)
  want = np.stack(
    [3 * from_x + 60, 3 * from_y + 70, 200 - 2 * from_x - from_y], axis=-1
  )
  inside = np.ones((SIZE, SIZE), bool)
  outside = np.zeros((SIZE, SIZE), bool)
  for place in (from_x, from_y):
    inside &= (place > 0.5) & (place < SIZE - 1.5)
    outside |= (place < -1.5) | (place > SIZE + 0.5)
  assert inside.sum() > 200 and outside.sum() > 20
  assert np.abs(made[inside] - want[inside]).max() <= 1.01
  np.testing.assert_array_equal(made[outside], 128)


@pytest.mark.parametrize("strength", [-1.0, -0.3, 0.3, 1.0])
def test_enhancers_scale_the_distance_to_what_they_are_named_by(
  smooth, strength
):
  factor, x = 1 + 0.9 * strength, smooth.astype(float)
  # Pillow rounds the gray, the black or the mean that it starts from.
  gray = np.floor(luma(x) + 0.5)[..., None]
  starts = {
    "brightness": 0.0,
    "contrast": np.floor(np.floor(luma(x) + 0.5).mean() + 0.5),
    "color": gray,
  }
  for name, start in starts.items():
    want = np.clip(start + factor * (x - start), 0, 255)
    made = change(smooth, name, strength)
    assert np.abs(made - want).max() <= 1.9, name
    assert np.abs(made - x).max() > 4  # It does something.


def test_sharpness_moves_away_from_the_blurred_picture(rng):
  pixels = rng.integers(60, 190, (9, 9, 3)).astype(np.uint8)
  made = change(pixels, "sharpness", 0.5)
  kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
  x = pixels.astype(float)
  blurred = x.copy()
  for i in range(1, 8):
    for j in range(1, 8):
      patch = x[i - 1 : i + 2, j - 1 : j + 2]
      blurred[i, j] = np.einsum("yx,yxc->c", kernel, patch)
  want = np.clip(blurred + 1.45 * (x - blurred), 0, 255)
  assert np.abs(made - want).max() <= 1.5


@pytest.mark.parametrize("strength", [-1.0, -0.25, 0.5, 1.0])
def test_solarize_and_posterize_are_arithmetic(smooth, strength):
  threshold = 256 * (1 - abs(strength))
  want = np.where(smooth < threshold, smooth, 255 - smooth)
  np.testing.assert_array_equal(change(smooth, "solarize", strength), want)
  step = 2 ** round(4 * abs(strength))
  want = smooth // step * step
  np.testing.assert_array_equal(change(smooth, "posterize", strength), want)


def test_histograms_are_stretched_and_flattened(rng):
  pixels = rng.integers(100, 150, (64, 64, 3)).astype(np.uint8)
  pixels[..., 1] //= 2
  made = change(pixels, "auto_contrast", 1.0)
  low, high = pixels.min(axis=(0, 1)), pixels.max(axis=(0, 1))
  want = (pixels - low.astype(float)) * 255 / (high - low)
  assert np.abs(made - want).max() <= 1
  made = change(pixels, "equalize", 1.0)
  # A level becomes the share of pixels below it, of those below the last.
  for c in range(3):
    x = pixels[..., c]
    below = np.searchsorted(np.sort(x.reshape(-1)), x)
    want = np.minimum(below / (below.max() // 255), 255)  # Its step is whole.
    assert np.abs(made[..., c] - want).max() <= 1
  np.testing.assert_array_equal(change(pixels, "identity", 1.0), pixels)


def test_draws_are_uniform_of_all_changes_and_both_sides(rng):
  made = rand_augment.RandAugment(num_ops=28_000, magnitude=5.0)
  drawn = made.draw(rng)
  counts = {name: [0, 0] for name in rand_augment.CHANGES}
  for name, strength in drawn:
    assert abs(strength) == 0.5
    counts[name][strength > 0] += 1
  assert len(counts) == 14
  # 1,000 of each expected, with a standard deviation of 31.
  assert all(850 < n < 1150 for sides in counts.values() for n in sides)
  some = rand_augment.RandAugment(num_ops=50, ops=("rotate", "equalize"))
  assert {name for name, _ in some.draw(rng)} == {"rotate", "equalize"}


def test_pictures_are_changed_in_training_only_and_by_the_draws(smooth):
  transform = image.ImageTransform(
    size=SIZE, crop_scale=(1.0, 1.0), rand_augment=dict(num_ops=2)
  )
  assert not transform.fixed

  def run(seed, train=True):
    rng = np.random.default_rng(seed)
    return transform({"image": smooth}, rng, train=train)["image"]

  np.testing.assert_array_equal(run(0, train=False), smooth)
  np.testing.assert_array_equal(run(3), run(3))
  different = {run(seed).tobytes() for seed in range(20)}
  assert len(different) > 12
  # The same two changes, one after the other.
  want = Image.fromarray(smooth)
  drawn = transform.rand_augment.draw(np.random.default_rng(3))
  for name, strength in drawn:
    want = rand_augment.CHANGES[name](want, strength)
  np.testing.assert_array_equal(run(3), want)
  assert run(3).dtype == np.uint8


def test_all_frames_of_a_clip_get_the_same_changes(smooth):
  transform = video.VideoTransform(
    size=SIZE,
    num_frames=3,
    crop_scale=(1.0, 1.0),
    rand_augment=dict(num_ops=2, ops=("rotate", "translate_x", "solarize")),
  )
  clip = np.stack([smooth] * 3)
  made = transform({"clip": clip}, np.random.default_rng(1), train=True)[
    "video"
  ]
  np.testing.assert_array_equal(made[1], made[0])
  np.testing.assert_array_equal(made[2], made[0])
  assert np.any(made[0] != smooth)


@pytest.mark.parametrize(
  "section, message",
  [
    (dict(num_ops=-1), "num_ops=-1, expected 0 or more"),
    (dict(magnitude=11), "magnitude=11.0, expected 0 to 10"),
    (dict(ops=("rotat",)), "Did you mean 'rotate'"),
    (dict(number=2), "'number'"),
  ],
)
def test_a_config_that_is_wrong_is_refused(section, message):
  with pytest.raises(errors.UserError, match=message):
    pipeline.build_pipeline(
      dict(source="synthetic", image=dict(size=8, rand_augment=section))
    )
