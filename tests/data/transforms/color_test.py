import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from mmjax.data.transforms import color


def test_jitter_colors_agrees_with_one_step_at_a_time(rng):
  pixels = rng.integers(90, 160, (6, 7, 3)).astype(np.uint8)
  picture = Image.fromarray(pixels)
  out = color.jitter_colors(np.random.default_rng(1), picture, 0.3)
  u = 2 * np.random.default_rng(1).random(3) - 1
  bright, contrast, saturation = 1 + 0.3 * u
  x = pixels.astype(float)
  gray = 0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2]
  x = gray[..., None] + saturation * (x - gray[..., None])
  x = gray.mean() + contrast * (x - gray.mean())
  x = np.clip(bright * x, 0, 255)
  # Half a level from rounding the result, as much from rounding the mean.
  assert np.abs(np.asarray(out) - x).max() <= 1


def test_jitter_of_strength_zero_changes_nothing(rng):
  pixels = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
  out = color.jitter_colors(rng, Image.fromarray(pixels), 0.0)
  np.testing.assert_array_equal(out, pixels)


@pytest.mark.parametrize("turn", [-1.0, 0.4, 2.5])
def test_hue_turns_by_the_angle_and_keeps_brightness(turn):
  matrix = np.array(color.hue_matrix(turn, 1.0))
  for rgb in ((0.8, 0.3, 0.1), (0.2, 0.5, 0.9)):
    y, i, q = colorsys.rgb_to_yiq(*rgb)
    new_y, new_i, new_q = colorsys.rgb_to_yiq(*(matrix @ rgb))
    assert new_y == pytest.approx(y, abs=0.02)
    turned = math.atan2(new_q, new_i) - math.atan2(q, i)
    # The library rounds the axes of YIQ to two digits.
    assert math.remainder(turned - turn, 2 * math.pi) == pytest.approx(
      0, abs=0.06
    )


def test_grays_have_no_hue_to_turn():
  np.testing.assert_allclose(
    np.array(color.hue_matrix(1.0, 1.0)) @ [0.5, 0.5, 0.5], 0.5, atol=1e-3
  )
