"""Pictures of shapes with captions, drawn on demand: nothing to download.

For tests, and to tell a slow input pipeline from a slow model.
"""

import io
from typing import Any, SupportsIndex

import numpy as np
from PIL import Image, ImageDraw

from mmjax.core import errors

COLORS = {
  "black": (20, 20, 20),
  "blue": (40, 80, 220),
  "green": (30, 160, 60),
  "orange": (240, 140, 20),
  "purple": (140, 50, 180),
  "red": (220, 40, 40),
}
COLORS_ZH = {
  "black": "黑色",
  "blue": "蓝色",
  "green": "绿色",
  "orange": "橙色",
  "purple": "紫色",
  "red": "红色",
}
SHAPES = ("circle", "diamond", "square", "triangle")
SHAPES_ZH = {
  "circle": "圆形",
  "diamond": "菱形",
  "square": "正方形",
  "triangle": "三角形",
}
PLACES = ("bottom left", "bottom right", "top left", "top right")
SIZE = 64  # Pixels.
SPLITS = {"train": 1024, "test": 128}


class SyntheticSource:
  """One coloured shape on white, with the fields of the starter pictures.

  `group` is the shape and `subgroup` the colour; tags say both and the place.
  Example i is a function of (split, i) alone.
  """

  splits = SPLITS

  def __init__(self, *, split: str, path: str = ""):
    if split not in SPLITS:
      raise errors.unknown("split of synthetic", split, SPLITS)
    if path:
      raise errors.UserError(
        f"The source 'synthetic' reads no files; got data.path={path!r}."
      )
    self._split = split
    self.class_names = {
      "group": SHAPES,
      "subgroup": tuple(COLORS),
      "artist": ("synthetic",),
    }

  def __len__(self) -> int:
    return SPLITS[self._split]

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    index = index.__index__()
    if not 0 <= index < len(self):
      raise IndexError(f"index {index} of {len(self)} examples")
    rng = np.random.default_rng((list(SPLITS).index(self._split), index))
    color = list(COLORS)[rng.integers(len(COLORS))]
    shape = SHAPES[rng.integers(len(SHAPES))]
    place = PLACES[rng.integers(len(PLACES))]
    return {
      "image": _draw(color, shape, place, rng),
      "concept": f"{self._split}-{index}",
      "artist": "synthetic",
      "group": shape,
      "subgroup": color,
      "label_en": f"{color} {shape}",
      "tags_en": f"{color}|{shape}|{place}",
      "label_zh": COLORS_ZH[color] + SHAPES_ZH[shape],
      "tags_zh": f"{COLORS_ZH[color]}|{SHAPES_ZH[shape]}",
    }


def _draw(color: str, shape: str, place: str, rng) -> bytes:
  image = Image.new("RGB", (SIZE, SIZE), "white")
  x = SIZE * (0.7 if "right" in place else 0.3)
  y = SIZE * (0.7 if "bottom" in place else 0.3)
  r = SIZE * rng.uniform(0.15, 0.25)
  draw = ImageDraw.Draw(image)
  if shape == "circle":
    draw.ellipse((x - r, y - r, x + r, y + r), fill=COLORS[color])
  else:
    corners = {
      "diamond": [(0, -1), (1, 0), (0, 1), (-1, 0)],
      "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
      "triangle": [(0, -1), (1, 1), (-1, 1)],
    }[shape]
    points = [(x + r * dx, y + r * dy) for dx, dy in corners]
    draw.polygon(points, fill=COLORS[color])
  file = io.BytesIO()
  image.save(file, "PNG", compress_level=1)
  return file.getvalue()
