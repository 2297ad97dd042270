import io

import numpy as np
import pytest
from PIL import Image

from mmjax.data.transforms import image, jpeg

simplejpeg = pytest.importorskip("simplejpeg")


@pytest.fixture
def picture(rng):
  small = rng.integers(0, 256, (9, 11, 3), dtype=np.uint8)
  return Image.fromarray(small).resize((61, 47), Image.Resampling.BICUBIC)


def _encoded(picture, **how):
  file = io.BytesIO()
  picture.save(file, "JPEG", **how)
  return file.getvalue()


@pytest.mark.parametrize(
  "mode, how",
  [
    ("RGB", dict(quality=90)),
    ("RGB", dict(quality=60, subsampling=0)),
    ("RGB", dict(subsampling=2, progressive=True)),
    ("L", dict(quality=80)),
  ],
)
def test_pixels_are_those_of_pillow_bit_for_bit(picture, mode, how):
  encoded = _encoded(picture.convert(mode), **how)
  want = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
  np.testing.assert_array_equal(jpeg.decode(encoded, 10_000), want)
  np.testing.assert_array_equal(image.decode(encoded), want)


def test_what_pillow_does_better_is_left_to_it(picture):
  exif = Image.Exif()
  exif[0x0112] = 6  # To be turned by 90 degrees.
  turned = _encoded(picture, exif=exif)
  whole = _encoded(picture)
  for encoded in (
    turned,
    _encoded(picture.convert("CMYK")),
    whole[: len(whole) // 2],
    b"\xff\xd8<html>",
    b"",
  ):
    assert jpeg.decode(encoded, 10_000) is None
  assert jpeg.decode(whole, 61 * 47 - 1) is None
  assert image.decode(turned).shape == (61, 47, 3)
  with pytest.raises(ValueError, match="max_pixels=9"):
    image.decode(whole, 9)
