import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data.transforms import image


def _encode(picture, form="PNG", **options):
  file = io.BytesIO()
  picture.save(file, form, **options)
  return file.getvalue()


def _noise(rng, height=48, width=64):
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK", "RGBA", "LA"])
def test_decode_gives_rgb_of_any_mode(mode):
  form = "TIFF" if mode == "CMYK" else "PNG"
  picture = Image.new("RGB", (5, 3), (255, 255, 255)).convert(mode)
  pixels = image.decode(_encode(picture, form))
  assert pixels.dtype == np.uint8
  np.testing.assert_array_equal(pixels, np.full((3, 5, 3), 255))


def test_decode_puts_transparency_on_white():
  rgba = np.zeros((1, 3, 4), np.uint8)
  rgba[0, :, 3] = [0, 128, 255]  # Black: invisible, half, full.
  pixels = image.decode(_encode(Image.fromarray(rgba)))
  # Alpha compositing by hand: 255 * (1 - alpha / 255).
  np.testing.assert_array_equal(pixels[0, :, 0], [255, 127, 0])


def test_decode_turns_a_photo_upright():
  picture = Image.new("RGB", (4, 2))
  picture.putpixel((0, 0), (255, 255, 255))
  exif = picture.getexif()
  exif[0x0112] = 6  # The camera was turned: rotate by 90 degrees clockwise.
  pixels = image.decode(_encode(picture, exif=exif))
  assert pixels.shape == (4, 2, 3)
  assert pixels[0, 1].tolist() == [255, 255, 255]


def test_decode_takes_the_first_frame_of_an_animation():
  frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
  data = _encode(
    frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True
  )
  assert image.decode(data)[0, 0].tolist() == [255, 0, 0]


def test_decode_refuses_a_bomb_before_it_unpacks_it():
  data = _encode(Image.new("RGB", (300, 200)))
  with pytest.raises(ValueError, match="300x200 pixels, more than max_pixels"):
    image.decode(data, max_pixels=59_999)
  assert image.decode(data, max_pixels=60_000).shape == (200, 300, 3)


def test_decode_says_what_is_broken(rng):
  whole = _encode(Image.fromarray(_noise(rng)))
  for data in (b"", b"hello", whole[:60], whole[: len(whole) // 2]):
    with pytest.raises(ValueError, match="not a picture that Pillow reads"):
      image.decode(data)


def test_evaluation_resizes_the_whole_picture(rng):
  pixels = _noise(rng, 32, 64)
  transform = image.ImageTransform(size=16)
  out = transform({"image": pixels}, rng, train=False)["image"]
  assert out.shape == (16, 16, 3) and out.dtype == np.uint8
  # A box filter is close to what an antialiased resize gives on average.
  boxes = pixels.reshape(16, 2, 16, 4, 3).mean(axis=(1, 3))
  assert np.abs(out.astype(float) - boxes).mean() < 20
  assert out.mean() == pytest.approx(pixels.mean(), abs=1.5)


def test_evaluation_leaves_a_picture_of_the_right_size_alone(rng):
  pixels = _noise(rng, 16, 16)
  transform = image.ImageTransform(size=16, color_jitter=0.5, flip=True)
  out = transform({"image": pixels}, rng, train=False)["image"]
  np.testing.assert_array_equal(out, pixels)


def _corners(out):
  """Fits the crop box of a picture whose red is x and green is y."""
  n = out.shape[0]
  centers = (np.arange(n) + 0.5) / n
  x_slope, left = np.polyfit(centers, out[:, :, 0].mean(axis=0), 1)
  y_slope, top = np.polyfit(centers, out[:, :, 1].mean(axis=1), 1)
  return left, top, x_slope, y_slope


def test_training_crops_within_scale_and_ratio(rng):
  grid = np.arange(200, dtype=np.uint8)
  pixels = np.zeros((200, 200, 3), np.uint8)
  pixels[:, :, 0], pixels[:, :, 1] = grid[None, :], grid[:, None]
  transform = image.ImageTransform(
    size=32, crop_scale=(0.3, 0.6), crop_ratio=(0.5, 2.0)
  )
  areas, ratios, lefts = [], [], []
  for _ in range(200):
    out = transform({"image": pixels}, rng, train=True)["image"]
    left, top, width, height = _corners(out)
    assert left > -2 and top > -2
    assert left + width < 202 and top + height < 202
    areas.append(width * height / 200**2)
    ratios.append(width / height)
    lefts.append(left)
  assert 0.28 < min(areas) < 0.35 and 0.55 < max(areas) < 0.62
  assert 0.45 < min(ratios) < 0.7 and 1.4 < max(ratios) < 2.2
  assert np.std(lefts) > 10


def test_a_crop_that_never_fits_falls_back_to_the_middle(rng):
  pixels = _noise(rng, 10, 200)
  transform = image.ImageTransform(
    size=8, crop_scale=(0.99, 1.0), crop_ratio=(1.0, 1.0)
  )
  out = transform({"image": pixels}, rng, train=True)["image"]
  middle = np.asarray(image.resize(pixels[:, 95:105], 8))
  # The outer columns see a little of what lies beyond the crop.
  np.testing.assert_array_equal(out[:, 1:-1], middle[:, 1:-1])


def test_flip_mirrors_half_of_the_pictures(rng):
  pixels = _noise(rng, 8, 8)
  transform = image.ImageTransform(
    size=8, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=True
  )
  flipped = 0
  for _ in range(200):
    out = transform({"image": pixels}, rng, train=True)["image"]
    if np.array_equal(out, pixels[:, ::-1]):
      flipped += 1
    else:
      np.testing.assert_array_equal(out, pixels)
  assert 60 < flipped < 140


def test_hue_jitter_is_within_its_limits(rng):
  transform = image.ImageTransform(
    size=1, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), hue_jitter=0.1
  )
  pixels = np.array([[[200, 100, 60]]], np.uint8)
  start = colorsys.rgb_to_yiq(*(pixels[0, 0] / 255))
  turns = []
  for _ in range(200):
    out = transform({"image": pixels}, rng, train=True)["image"][0, 0] / 255
    _, i, q = colorsys.rgb_to_yiq(*out)
    turn = math.atan2(q, i) - math.atan2(start[2], start[1])
    turns.append(math.remainder(turn, 2 * math.pi) / (2 * math.pi))
  assert max(turns) == pytest.approx(0.1, abs=0.02)
  assert min(turns) == pytest.approx(-0.1, abs=0.02)


def test_blur_spreads_a_point_by_up_to_its_deviation(rng):
  pixels = np.zeros((31, 31, 3), np.uint8)
  pixels[15, 15] = 255
  transform = image.ImageTransform(
    size=31, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), blur=2.0
  )
  deviations = []
  for _ in range(50):
    out = transform({"image": pixels}, rng, train=True)["image"][..., 0]
    weights = out.sum(axis=0) / out.sum()
    deviations.append(np.sqrt(weights @ (np.arange(31) - 15.0) ** 2))
  assert 1.5 < max(deviations) < 2.2
  assert min(deviations) < 0.5


def test_same_generator_same_picture(rng):
  pixels = _noise(rng)
  transform = image.ImageTransform(size=16, color_jitter=0.2)

  def draw(seed):
    generator = np.random.default_rng(seed)
    return transform({"image": pixels}, generator, train=True)["image"]

  np.testing.assert_array_equal(draw(0), draw(0))
  assert (draw(0) != draw(1)).any()


def test_other_fields_pass_and_the_source_field_may_have_another_name(rng):
  example = {"photo": _encode(Image.new("RGB", (8, 8), "red")), "x": 1}
  transform = image.ImageTransform(size=4, field="photo")
  out = transform(example, rng, train=False)
  assert out["x"] == 1 and isinstance(example["photo"], bytes)
  assert out["image"][0, 0].tolist() == [255, 0, 0]
  (spec,) = transform.specs().values()
  assert spec.matches(out["image"][None])


def test_what_is_not_a_picture_is_told(rng):
  transform = image.ImageTransform()
  with pytest.raises(errors.UserError, match="Did you mean 'image'"):
    image.ImageTransform(field="imag")({"image": b""}, rng, train=False)
  with pytest.raises(ValueError, match=r"float32\[4, 4, 3\]"):
    transform({"image": np.zeros((4, 4, 3), np.float32)}, rng, train=False)


@pytest.mark.parametrize(
  "fields",
  [
    dict(size=0),
    dict(crop_scale=(0.0, 1.0)),
    dict(crop_scale=(0.9, 0.5)),
    dict(crop_ratio=(2.0, 1.0)),
    dict(color_jitter=1.0),
    dict(hue_jitter=-0.1),
    dict(blur=-1.0),
  ],
)
def test_wrong_settings_are_refused_at_once(fields):
  (name,) = fields
  with pytest.raises(errors.UserError, match=f"{name}=.*expected"):
    image.ImageTransform(**fields)


@pytest.mark.parametrize("strategy", ["random", "blockwise"])
def test_mask_image_hides_the_same_number_each_time(rng, strategy):
  transform = image.MaskImage(grid=(4, 6), rate=0.4, strategy=strategy)
  assert transform.count == 10  # 0.4 * 24 = 9.6, rounded.
  for train in (True, False):
    out = transform({}, rng, train=train)["image_hidden"]
    assert transform.specs()["image_hidden"].matches(out[None])
    assert len(set(out.tolist())) == 10


@pytest.mark.parametrize("strategy", ["random", "blockwise"])
def test_mask_image_may_hide_all_of_a_picture(rng, strategy):
  transform = image.MaskImage(grid=(2, 3), rate=1.0, strategy=strategy)
  assert transform({}, rng, train=True)["image_hidden"].tolist() == [*range(6)]


def test_mask_image_refuses_nothing_and_more_than_all():
  with pytest.raises(errors.UserError, match="hides 0 of its 16 tokens"):
    image.MaskImage(grid=(4, 4), rate=0.01)
  with pytest.raises(errors.UserError, match="hides 18 of its 16 tokens"):
    image.MaskImage(grid=(4, 4), rate=1.1)
  with pytest.raises(errors.UserError, match="Did you mean 'blockwise'"):
    image.MaskImage(strategy="block")
