"""Resizes pictures by bilinear interpolation without antialiasing."""

import functools
from typing import Any

import numpy as np
from jaxtyping import UInt8

from mmjax.core import errors


def resize(
  pixels: UInt8[np.ndarray, "h w 3"],
  shape: tuple[int, int],
  box: tuple[float, float, float, float] | None = None,
) -> UInt8[np.ndarray, "y x 3"]:
  """Scales the part `box` (left, top, right, bottom), rounded to pixels.

  An eighth of the time of Pillow's, which looks at all pixels. What is more
  than twice as large as `shape` loses some, and shows it.

  Raises:
    UserError: OpenCV is not installed.
  """
  height, width = pixels.shape[:2]
  left, top, right, bottom = box or (0, 0, width, height)
  # A part of no pixels has one.
  left, top = min(round(left), width - 1), min(round(top), height - 1)
  right, bottom = max(round(right), left + 1), max(round(bottom), top + 1)
  part = pixels[top:bottom, left:right]
  if part.shape[:2] == shape:
    return part
  return _library().resize(part, shape[::-1])


@functools.cache
def _library() -> Any:
  try:
    import cv2
  except ImportError as e:
    raise errors.UserError(
      "image.antialias=False needs OpenCV: pip install 'mmjax[fast]', or set "
      "it to True."
    ) from e
  # Examples are made beside each other: each is the work of one thread.
  cv2.setNumThreads(1)
  return cv2
