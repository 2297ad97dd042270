"""Learned positions of one grid from those of another.

For pictures of another size, clips or sounds of another length: places keep
their share of the whole. Sources: Dosovitskiy et al. 2021 (arXiv:2010.11929),
3.2, interpolate so to fine-tune at other resolutions; their code and big_vision
do it bilinearly, as here. Half-pixel centres, and antialiasing where the grid
shrinks (`jax.image.resize`): where it grows, a resized table holds what
`models.layers.places` reads from the old one.

Other ways (`METHODS`) are those of released models, which learned, or are used,
with them.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from mmjax.core import errors

TABLE = "positions/table"
METHODS = (
  "linear",
  "cubic",  # With antialiasing too, as DINOv2 with registers.
  # Without, a sharper kernel, and edges repeated: torch's "bicubic", as BEiT,
  # MAE and DINOv2 of transformers.
  "cubic_sharp",
)
SHARP = -0.75  # Of that kernel; that of "cubic" has -0.5.
Grid = tuple[int, ...]


def is_table(name: str) -> bool:
  """Whether a parameter is a table of learned positions."""
  return name == TABLE or name.endswith(f"/{TABLE}")


def is_text(name: str) -> bool:
  """Whether a parameter belongs to a text encoder."""
  return any(p == "text" or p.endswith("_text") for p in name.split("/"))


def parse(entry: str | Sequence[Any]) -> tuple[str, Grid, Grid]:
  """An entry of `init.resize`: pattern, old grid, new grid.

  A pattern alone stands for square grids, which are empty here; else the grids
  are texts: ("encoders_audio/.*", "100x8", "50x8"), slowest axis first, as in
  the encoder (time, row, column).

  Raises:
    UserError: neither a pattern nor a pattern and two grids of as many axes.
  """
  if isinstance(entry, str):
    return entry, (), ()
  if len(entry) == 3:
    pattern, *grids = (str(part) for part in entry)
    sides = [grid.split("x") for grid in grids]
    whole = all(side.isdecimal() and int(side) for s in sides for side in s)
    if whole and len(sides[0]) == len(sides[1]):
      old, new = (tuple(int(side) for side in s) for s in sides)
      return pattern, old, new
  raise errors.UserError(
    f"init.resize has {entry!r}; expected a pattern, or a pattern, the old "
    "grid and the new one, such as ('encoders_audio/.*', '100x8', '50x8')."
  )


def grids(
  name: str, num_old: int, num_new: int, old: Grid = (), new: Grid = ()
) -> tuple[Grid, Grid]:
  """The grids of a table's rows before and after; square unless given.

  Args:
    name: of the table in the model.
    num_old: rows in the checkpoint.
    num_new: rows in the model.
    old: grid in the checkpoint; empty = square.
    new: grid in the model.

  Raises:
    UserError: a table of text, or rows that do not make the grid.
  """
  if is_text(name):
    raise errors.UserError(
      f"init.resize: {name} has {num_new} rows in the model, {num_old} in the "
      "checkpoint. Tokens of a text are counted one by one: between two there "
      "is nothing to interpolate. Set data.text.max_tokens as it was, or name "
      "the table in init.new."
    )
  sides = math.isqrt(num_old), math.isqrt(num_new)
  if not old and (sides[0] ** 2, sides[1] ** 2) == (num_old, num_new):
    return (sides[0], sides[0]), (sides[1], sides[1])
  if not old or (math.prod(old), math.prod(new)) != (num_old, num_new):
    said = f"{describe(old)} -> {describe(new)}" if old else "square grids"
    raise errors.UserError(
      f"init.resize: {name} has {num_old} rows in the checkpoint, {num_new} in "
      f"the model, which do not make {said}. Give both grids: (pattern, "
      "'ROWSxCOLUMNS', 'ROWSxCOLUMNS'), with time first where there is any."
    )
  return old, new


def resize(
  table: Float[np.ndarray, "n d"], old: Grid, new: Grid, method: str = "linear"
) -> Float[np.ndarray, "m d"]:
  """Resamples a table of a grid, axis by axis.

  Raises:
    UserError: `method` is not of `METHODS`.
  """
  if method not in METHODS:
    raise errors.unknown("init.resize_method", method, METHODS)
  dim = table.shape[1]
  cells = table.reshape(*old, dim).astype(np.float32)
  if method == "cubic_sharp":
    for axis, (size, wanted) in enumerate(zip(old, new, strict=True)):
      weights = _sharp(size, wanted)  # wanted size
      cells = np.moveaxis(np.tensordot(weights, cells, (1, axis)), 0, axis)
  else:
    cells = jax.image.resize(cells, (*new, dim), method)
  return np.asarray(cells).reshape(-1, dim).astype(table.dtype)


def _sharp(size, wanted):
  """Shares of cells along an axis: Keys 1981, eq. 4, with `SHARP` as a."""
  places = (np.arange(wanted) + 0.5) * size / wanted - 0.5
  weights = np.zeros((wanted, size))
  for tap in (-1, 0, 1, 2):
    cell = np.floor(places).astype(int) + tap
    t, a = np.abs(places - cell), SHARP
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    share = np.where(t <= 1, near, far)
    weights[np.arange(wanted), np.clip(cell, 0, size - 1)] += share
  return weights


def describe(grid: Grid) -> str:
  """Formats a grid as `8x8`."""
  return "x".join(map(str, grid))
