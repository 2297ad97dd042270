"""Colours of pictures: brightness, contrast, saturation and hue."""

import math

import numpy as np
from PIL import Image

# Brightness of R, G and B to the eye: ITU-R BT.601.
LUMA = (0.299, 0.587, 0.114)
YIQ_OF_RGB = np.array(
  [LUMA, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)]
)
RGB_OF_YIQ = np.linalg.inv(YIQ_OF_RGB)


def jitter_colors(
  rng: np.random.Generator,
  picture: Image.Image,
  strength: float,
  hue: float = 0.0,
) -> Image.Image:
  """Changes brightness, contrast and saturation by up to `strength` each.

  Besides, turns the hue by up to `hue` of the circle. All are affine in the
  colour: one 3 x 3 matrix and an offset, a sixth of the time that numpy takes.
  """
  *u, turn = rng.random(4).tolist()
  bright, contrast, saturation = (1 + strength * (2 * v - 1) for v in u)
  mean = picture.reduce(picture.size).getpixel((0, 0))  # Rounded.
  gray = sum(c * weight for c, weight in zip(mean, LUMA, strict=True))
  offset = bright * (1 - contrast) * gray  # Contrast turns around the mean.
  angle = 2 * math.pi * hue * (2 * turn - 1)
  # Row by row, what a channel becomes of R, G and B.
  matrix: list[float] = []
  for row in hue_matrix(angle, saturation):
    matrix += [*(bright * contrast * m for m in row), offset]
  return picture.convert("RGB", tuple(matrix))


def hue_matrix(
  angle: float, saturation: float
) -> tuple[tuple[float, ...], ...]:
  """Turns colours around the axis of grays, and scales their distance to it.

  The plane of constant luma is that of I and Q in YIQ (NTSC); luma stays.
  """
  cos, sin = saturation * math.cos(angle), saturation * math.sin(angle)
  turned = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
  return tuple(map(tuple, (RGB_OF_YIQ @ turned @ YIQ_OF_RGB).tolist()))
