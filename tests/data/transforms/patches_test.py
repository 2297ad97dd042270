import io
import math
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms.image import ImageTransform
from mmjax.data.transforms.patches import (
  PatchTransform,
  cut,
  fit_grid,
  padding_share,
)

WHOLE = ImageTransform(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))


def _noise(rng, height, width):
  return rng.integers(0, 256, (height, width, 3)).astype(np.uint8)


def _picture(out):
  """The picture that a bag of patches was cut from."""
  real = out["image_mask"]
  patches, where = out["image"][real], out["image_coordinates"][real]
  side = math.isqrt(patches.shape[1] // 3)
  rows, columns = where.max(axis=0) + 1
  assert len(patches) == rows * columns
  picture = np.zeros((rows * side, columns * side, 3), np.uint8)
  for patch, (row, column) in zip(patches, where * side, strict=True):
    picture[row : row + side, column : column + side] = patch.reshape(
      side, side, 3
    )
  return picture


def _scaled(height, width, patch_size, max_patches):
  """Rows and columns by bisection of the scale, as NaFlex's released code."""
  low, high = 0.0, 100.0
  for _ in range(100):
    scale = (low + high) / 2
    rows = max(1, math.ceil(scale * height / patch_size))
    columns = max(1, math.ceil(scale * width / patch_size))
    low, high = (scale, high) if rows * columns <= max_patches else (low, scale)
  return (
    max(1, math.ceil(low * height / patch_size)),
    max(1, math.ceil(low * width / patch_size)),
  )


def test_grids_are_those_of_the_largest_scale_that_fits(rng):
  for height, width in rng.integers(3, 3000, (100, 2)).tolist():
    got = fit_grid(height, width, patch_size=8, max_patches=100, upscale=True)
    assert got == _scaled(height, width, 8, 100), (height, width)


def test_large_pictures_keep_their_shape_and_the_limit(rng):
  for height, width in rng.integers(200, 4000, (100, 2)).tolist():
    rows, columns = fit_grid(height, width, patch_size=8, max_patches=256)
    assert rows * columns <= 256
    # Stretched by less than one patch along one side.
    assert abs(columns - rows * width / height) < 1 + width / height
    assert (rows, columns) == _scaled(height, width, 8, 256)


@pytest.mark.parametrize(
  ("height", "width", "grid"),
  [
    (64, 40, (8, 5)),  # Whole patches: as it is.
    (71, 47, (8, 5)),  # Never larger, so less than a patch is squeezed.
    (1, 1, (1, 1)),  # Less than a patch: one.
    (3, 100, (1, 12)),
    (1, 20_000, (1, 64)),
    (20_000, 1, (64, 1)),
    (64, 64, (8, 8)),
    (65, 64, (8, 8)),
    (640, 640, (8, 8)),
  ],
)
def test_small_pictures_do_not_grow(height, width, grid):
  assert fit_grid(height, width, patch_size=8, max_patches=64) == grid


def test_small_pictures_grow_if_asked():
  assert fit_grid(10, 10, patch_size=8, max_patches=64, upscale=True) == (8, 8)


def test_pictures_of_no_pixels_are_told():
  with pytest.raises(ValueError, match="5x0 pixels: nothing to cut"):
    fit_grid(0, 5, patch_size=8, max_patches=64)


def test_padding_is_less_than_5_percent_of_the_tokens(rng):
  ratios = np.exp(rng.uniform(-math.log(3), math.log(3), 1000))
  sizes = [
    (round(600 / math.sqrt(r)), round(600 * math.sqrt(r))) for r in ratios
  ]
  share = padding_share(sizes, patch_size=8, max_patches=256)
  assert 0 < share < 0.05
  # Squares around the same pictures would be padding to 1 - 1 / ratio.
  in_squares = np.mean(1 - np.minimum(ratios, 1 / ratios))
  assert in_squares > 0.35


def test_share_of_padding_by_hand():
  # Patches 2x3 and 1x1 of 8 allowed each: 16 - 7 are padding.
  sizes = [(16, 24), (8, 8)]
  assert padding_share(sizes, patch_size=8, max_patches=8) == 9 / 16


def test_patches_are_cut_row_by_row(rng):
  pixels = _noise(rng, 4, 6)
  got = cut(pixels, 2)
  assert got.shape == (6, 12)
  for i, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
    square = pixels[row : row + 2, column : column + 2]
    np.testing.assert_array_equal(got[i], square.reshape(-1))


@pytest.mark.parametrize("train", [False, True])
def test_a_picture_that_fits_is_cut_as_it_is(rng, train):
  pixels = _noise(rng, 16, 24)
  transform = PatchTransform(patch_size=8, max_patches=7, image=WHOLE)
  out = transform({"image": pixels, "x": 1}, rng, train=train)
  for name, spec in transform.specs().items():
    assert spec.matches(out[name][None]), name
  assert out["x"] == 1
  assert out["image_mask"].tolist() == [True] * 6 + [False]
  assert not out["image"][6].any()
  np.testing.assert_array_equal(_picture(out), pixels)


def test_evaluation_scales_the_whole_picture(rng):
  ramp = np.linspace(0, 255, 300).astype(np.uint8)
  pixels = np.broadcast_to(ramp[None, :, None], (100, 300, 3))
  transform = PatchTransform(patch_size=4, max_patches=48)
  picture = _picture(transform({"image": pixels}, rng, train=False))
  assert picture.shape == (16, 48, 3)  # One to three, as before.
  centers = (np.arange(48) + 0.5) / 48 * 255
  assert np.abs(picture[..., 0] - centers[None]).max() < 3


def test_training_takes_a_part_of_the_pictures_own_ratio(rng):
  transform = PatchTransform(
    patch_size=2,
    max_patches=400,
    image=ImageTransform(crop_scale=(0.3, 0.6), crop_ratio=(0.9, 1.1)),
  )
  pixels = np.zeros((100, 300, 3), np.uint8)
  pixels[..., 0] = np.linspace(0, 255, 300).astype(np.uint8)[None]
  shares, lefts = [], []
  for _ in range(60):
    picture = _picture(transform({"image": pixels}, rng, train=True))
    ratio = picture.shape[1] / picture.shape[0]
    assert 3 * 0.8 < ratio < 3 * 1.25
    row = picture[..., 0].mean(axis=0)
    shares.append((row[-1] - row[0]) / 255)
    lefts.append(row[0])
  # Widths of sqrt(0.3 * 0.9) to sqrt(0.6 * 1.1) of the whole.
  assert 0.48 < min(shares) and max(shares) < 0.83
  assert max(lefts) - min(lefts) > 40


def test_colours_change_in_training_only(rng):
  look = ImageTransform(
    crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), color_jitter=0.5
  )
  transform = PatchTransform(max_patches=4, image=look)
  pixels = _noise(rng, 16, 16)
  out = transform({"image": pixels}, rng, train=False)
  np.testing.assert_array_equal(_picture(out), pixels)
  assert (
    _picture(transform({"image": pixels}, rng, train=True)) != pixels
  ).any()


def _png(width, height):
  """A PNG that says it has so many pixels, and has none."""

  def chunk(kind, data):
    check = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + check

  header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
  return (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", header)
    + chunk(b"IDAT", zlib.compress(b""))
    + chunk(b"IEND", b"")
  )


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000)])
@pytest.mark.parametrize("make", [ImageTransform, PatchTransform])
def test_huge_pictures_are_refused_before_they_are_decoded(rng, make, size):
  with pytest.raises(ValueError, match="more than max_pixels=67108864"):
    make()({"image": _png(*size)}, rng, train=True)


def test_the_limit_of_pixels_comes_from_the_section_of_the_image(rng):
  made = pipeline.build_pipeline(
    dict(
      source="synthetic",
      image=dict(max_pixels=4096, patches=dict(patch_size=4, max_patches=9)),
    )
  )
  (transform,) = made.transforms
  with pytest.raises(
    ValueError, match="80x60 pixels, more than max_pixels=4096"
  ):
    transform.prepare({"image": _png(80, 60)})


@pytest.mark.parametrize("train", [False, True])
def test_a_picture_of_one_pixel_is_one_patch(rng, train):
  file = io.BytesIO()
  Image.new("RGB", (1, 1), (10, 20, 30)).save(file, "PNG")
  transform = PatchTransform(patch_size=4, max_patches=9)
  out = transform({"image": file.getvalue()}, rng, train=train)
  assert out["image_mask"].sum() == 1
  expected = np.broadcast_to(np.array([10, 20, 30]), (4, 4, 3))
  np.testing.assert_array_equal(_picture(out), expected)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3)])
@pytest.mark.parametrize("make", [ImageTransform, PatchTransform])
def test_a_picture_of_no_pixels_is_told(rng, make, shape):
  with pytest.raises(ValueError, match="a picture of no pixels"):
    make()({"image": np.zeros(shape, np.uint8)}, rng, train=True)


@pytest.mark.parametrize("name", ["patch_size", "max_patches"])
def test_wrong_settings_are_refused_at_once(name):
  with pytest.raises(errors.UserError, match=f"{name}=0, expected at least 1"):
    PatchTransform(**{name: 0})


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (dict(patches=dict(max_patch=9)), "patches.max_patch'.*'max_patches'"),
    (dict(patches=dict(max_patches=0)), "data.image.patches: max_patches=0"),
    (dict(patches=dict(patch_size=4), second="itself"), "image.second needs"),
    (dict(patches=dict(patch_size=4), mask=dict(rate=0.5)), "image.mask needs"),
  ],
)
def test_mistakes_in_a_config_are_told(changes, message):
  with pytest.raises(errors.UserError, match=message):
    pipeline.build_pipeline(dict(source="synthetic", image=changes))


def test_pictures_may_be_lacking():
  made = pipeline.build_pipeline(
    dict(
      source="synthetic",
      image=dict(patches=dict(patch_size=8, max_patches=9)),
      optional=("image",),
    )
  )
  example = made.example(0, 0, 0, train=False)
  assert example["image_present"] and example["image_mask"].all()
  (transform,) = made.transforms
  out = transform({"image": b""}, np.random.default_rng(0), train=True)
  assert not out["image_present"] and not out["image_mask"].any()
