"""Lays out a matrix as an SVG of shaded cells with readable names."""

import dataclasses
import math
from collections.abc import Sequence

from mmjax.report import formats

MAX_ROWS = 100
MAX_NAME = 26  # Characters.
LETTER = 6.0  # Width of a character, units.
CELL = (10.0, 34.0)  # Smallest and largest side of a cell.
WIDTH = 900.0  # Of all cells together, where the limits allow.
RELATIVE = "share of the row"
SLANTED = 22.0  # From this side on cells have numbers and slanted names.


@dataclasses.dataclass(frozen=True)
class Cell:
  """One shaded square."""

  x: float
  y: float
  shade: float  # 0 to 1.
  text: str  # In the cell; "" where it is too small.
  title: str


@dataclasses.dataclass(frozen=True)
class Name:
  """The name of a row or column, and where it stands."""

  at: float
  text: str
  title: str


@dataclasses.dataclass(frozen=True)
class Heatmap:
  """What the template `heatmap` draws."""

  width: float
  height: float
  left: float
  top: float
  cell: float
  angle: int  # Of the column names.
  rows: tuple[Name, ...]
  columns: tuple[Name, ...]
  cells: tuple[Cell, ...]
  diagonal: tuple[tuple[float, float], ...]  # Squares of right answers.
  right: float  # Where the cells end, ...
  bottom: float  # ... and below.
  shade: str  # What the shade means.


def layout(
  values: Sequence[Sequence[float]],
  row_names: Sequence[str],
  column_names: Sequence[str],
) -> Heatmap:
  """Places the cells of a matrix; its first 100 rows and columns."""
  values = [row[:MAX_ROWS] for row in values[:MAX_ROWS]]
  rows, columns = row_names[:MAX_ROWS], column_names[:MAX_ROWS]
  cell = max(CELL[0], min(CELL[1], math.floor(WIDTH / len(columns))))
  slanted = cell >= SLANTED
  left = _length(rows) + 8
  reach = _length(columns) * (0.71 if slanted else 1.0)
  top = round(reach + 12, 1)
  right, bottom = left + cell * len(columns), top + cell * len(rows)
  same = list(rows) == list(columns)
  return Heatmap(
    width=round(right + (reach if slanted else 4.0) + 4, 1),
    height=round(bottom + 2, 1),
    left=left,
    top=top,
    cell=cell,
    angle=-45 if slanted else -90,
    rows=_names(rows, top, cell),
    columns=_names(columns, left, cell),
    cells=_cells(values, rows, columns, (left, top, cell)),
    diagonal=tuple(
      (left + i * cell, top + i * cell) for i in range(len(rows) * same)
    ),
    right=right,
    bottom=bottom,
    shade="from lowest to highest" if _any_below_0(values) else RELATIVE,
  )


def most_confused(
  values: Sequence[Sequence[float]], names: Sequence[str], count: int = 5
) -> list[tuple[str, str, str]]:
  """The largest values beside the diagonal: true name, other name, value."""
  found = [
    (value, i, j)
    for i, row in enumerate(values)
    for j, value in enumerate(row)
    if i != j and value > 0
  ]
  found.sort(key=lambda entry: (-entry[0], entry[1], entry[2]))
  return [
    (names[i], names[j], formats.decimal(value))
    for value, i, j in found[:count]
  ]


def _length(names):
  return round(max(len(_cut(name)) for name in names) * LETTER, 1)


def _cut(name):
  return name if len(name) <= MAX_NAME else name[: MAX_NAME - 1] + "…"


def _names(names, start, cell):
  return tuple(
    Name(round(start + (i + 0.5) * cell, 1), _cut(name), name)
    for i, name in enumerate(names)
  )


def _cells(values, rows, columns, frame):
  left, top, cell = frame
  shade = _shades(values)
  return tuple(
    Cell(
      x=round(left + j * cell, 1),
      y=round(top + i * cell, 1),
      shade=round(shade(i, value), 3),
      text=formats.decimal(value) if cell >= SLANTED else "",
      title=f"{rows[i]} → {columns[j]}: {formats.decimal(value)}",
    )
    for i, row in enumerate(values)
    for j, value in enumerate(row)
    if value and math.isfinite(value)
  )


def _any_below_0(values):
  return any(v < 0 for row in values for v in row if math.isfinite(v))


def _shades(values):
  """Share of the row for counts; from lowest to highest for other numbers."""
  finite = [v for row in values for v in row if math.isfinite(v)]
  low, high = min(finite, default=0.0), max(finite, default=1.0)
  if _any_below_0(values):
    return lambda _, value: (value - low) / ((high - low) or 1.0)
  sums = [sum(v for v in row if math.isfinite(v)) or 1.0 for row in values]
  return lambda i, value: value / sums[i]
