import sys

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.transforms import bilinear, image


def _by_loop(pixels, shape):
  """Between the centers of pixels; at the edges the nearest."""
  height, width = pixels.shape[:2]
  made = np.zeros((*shape, 3))
  for i in range(shape[0]):
    for j in range(shape[1]):
      y = min(max((i + 0.5) * height / shape[0] - 0.5, 0), height - 1)
      x = min(max((j + 0.5) * width / shape[1] - 0.5, 0), width - 1)
      top, left = min(int(y), height - 2), min(int(x), width - 2)
      for a, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
        for b, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
          made[i, j] += weight_y * weight_x * pixels[a, b]
  return made


@pytest.mark.parametrize("shape", [(5, 7), (30, 20), (12, 9)])
def test_resized_as_a_loop_does(rng, shape):
  pytest.importorskip("cv2")
  pixels = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
  made = bilinear.resize(pixels, shape)
  assert np.abs(made - _by_loop(pixels, shape)).max() <= 1

  part = bilinear.resize(pixels, shape, (2.2, 3.4, 7.6, 10.5))
  assert np.abs(part - _by_loop(pixels[3:10, 2:8], shape)).max() <= 1


def test_a_transform_without_antialiasing_uses_it(rng):
  pytest.importorskip("cv2")
  pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
  made = image.ImageTransform(size=20, crop_scale=(1.0, 1.0), antialias=False)
  for train in (True, False):
    example = made({"image": pixels}, rng, train=train)
    np.testing.assert_array_equal(
      example["image"], bilinear.resize(pixels, (20, 20))
    )


def test_without_opencv_it_is_said_what_to_install(monkeypatch):
  bilinear._library.cache_clear()
  monkeypatch.setitem(sys.modules, "cv2", None)
  with pytest.raises(errors.UserError, match=r"pip install 'mmjax\[fast\]'"):
    bilinear.resize(np.zeros((4, 4, 3), np.uint8), (2, 2))
