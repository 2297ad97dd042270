"""Examples of a data set as tiles to look at: a picture, and what it says."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from mmjax.core import errors
from mmjax.data import broken, check
from mmjax.data.sources import Source
from mmjax.data.transforms import audio, image, video

SIDE = 160  # Pixels, of a picture's longer side.
NUM_FRAMES = 3  # Of a clip.
COLUMNS, LINES, LETTERS = 6, 6, 25  # Of the picture file; of text below.
LINE, MARGIN, FONT = 14, 8, 11  # Pixels.
# The first that this machine has; those before others have more scripts.
FONTS = (
  "NotoSansCJK-Regular.ttc",
  "Arial Unicode.ttf",
  "DejaVuSans.ttf",
  "NotoSans-Regular.ttf",
  "LiberationSans-Regular.ttf",
  "arial.ttf",
)
INK, WRONG, PAPER = "#1c2128", "#b42318", "white"


@dataclasses.dataclass(frozen=True)
class Tile:
  """One example."""

  where: str  # As "train[3]".
  pictures: tuple[UInt8[np.ndarray, "h w 3"], ...]
  texts: Mapping[str, str]  # By field.
  problem: str = ""  # Why there is no more of it.


def tiles(source: Source, split: str, count: int) -> list[Tile]:
  """Examples from first to last, as far from each other as they can be."""
  count = min(count, len(source))
  chosen = np.linspace(0, len(source) - 1, count).round().astype(int)
  return [_tile(source, int(i), f"{split}[{i}]") for i in np.unique(chosen)]


def _tile(source, index, where):
  pictures: list[np.ndarray] = []
  texts: dict[str, str] = {}
  problem = ""
  try:
    example = source[index]
  except Exception as e:  # A damaged record raises nearly anything.
    return Tile(where, (), {}, f"cannot be read: {type(e).__name__}: {e}")
  for name, value in example.items():
    try:
      if isinstance(value, bytes):
        pictures += _look(value)
      elif text := _text(value):
        texts[name] = text
    except ValueError as e:
      problem = f"{name}: {broken.without_address(str(e))}"
  return Tile(where, tuple(pictures), texts, problem)


def _look(value: bytes) -> list[np.ndarray]:
  """A picture, frames of a clip, or the loudness of a recording."""
  medium = check.medium(value)
  if medium == check.RECORDING:
    return [_waveform(audio.decode(value)[0])]
  if medium == check.CLIP:
    frames = video.decode(value)
    chosen = np.linspace(0, len(frames) - 1, NUM_FRAMES).round().astype(int)
    return [_small(frames[i]) for i in np.unique(chosen)]
  return [_small(image.decode(value))]  # Or says what is wrong.


def _small(pixels: np.ndarray) -> np.ndarray:
  picture = Image.fromarray(pixels)
  picture.thumbnail((SIDE, SIDE))
  return np.asarray(picture)


def _waveform(samples: np.ndarray) -> np.ndarray:
  """The loudest sample of each column, around the middle."""
  height = SIDE // 3
  parts = np.array_split(np.abs(samples), SIDE)
  peaks = np.array([part.max(initial=0.0) for part in parts])
  rows = np.abs(np.arange(height) - height // 2)[:, None]
  inside = rows <= np.minimum(peaks, 1.0) * (height // 2)
  return np.where(inside[..., None], (37, 99, 201), 235).astype(np.uint8)


def _text(value: Any) -> str:
  if isinstance(value, (str, bool, int, float, np.number)):
    return str(value)
  if isinstance(value, (tuple, list)):
    return " | ".join(filter(None, map(_text, value)))
  return str(getattr(value, "text", ""))  # A message of a conversation.


def write_png(file: Path, shown: Sequence[Tile]) -> None:
  """Draws tiles in rows.

  Raises:
    UserError: the file cannot be written.
  """
  width, height = SIDE + 2 * MARGIN, SIDE + LINES * LINE + 2 * MARGIN
  columns = min(COLUMNS, len(shown))
  rows = -(-len(shown) // columns)
  sheet = Image.new("RGB", (columns * width, rows * height), PAPER)
  draw, font = ImageDraw.Draw(sheet), _font()
  for number, tile in enumerate(shown):
    x = number % columns * width + MARGIN
    y = number // columns * height + MARGIN
    for i, pixels in enumerate(tile.pictures):
      # Several share the place of one, side by side.
      picture = Image.fromarray(pixels)
      picture.thumbnail((SIDE // len(tile.pictures), SIDE))
      sheet.paste(picture, (x + i * (SIDE // len(tile.pictures)), y))
    lines = [line for text in _words(tile) for line in _wrap(text)]
    for i, line in enumerate(lines[:LINES]):
      color = WRONG if i and tile.problem else INK
      draw.text((x, y + SIDE + i * LINE), line, color, font=font)
  try:
    sheet.save(file, "PNG")
  except OSError as e:
    raise errors.UserError(
      f"--sheet={str(file)!r} cannot be written: {e.strerror or e}."
    ) from e


def _font() -> Any:
  for name in FONTS:  # Pillow looks where the system has them.
    try:
      return ImageFont.truetype(name, FONT)
    except OSError:
      continue
  return ImageFont.load_default(FONT)  # Of English letters only.


def _words(tile: Tile) -> list[str]:
  if tile.problem:
    return [tile.where, tile.problem]
  return [tile.where, *(f"{k}: {v}" for k, v in tile.texts.items())]


def _wrap(text: str) -> list[str]:
  return textwrap.wrap(text, LETTERS, max_lines=3, placeholder=" ...")
