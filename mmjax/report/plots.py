"""Lays out plots as SVG; the templates draw them in the page's colours.

Coordinates are SVG units, about one CSS pixel on the page, y downwards.
"""

import dataclasses
import math
from collections.abc import Sequence

from mmjax.report import curves, formats, runs

WIDTH, HEIGHT = 360, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 350, 8, 156  # The frame inside of it.
MAX_POINTS = 300  # Per line; more are averaged in groups.
MAX_DOTS = 60  # More points are drawn as a line only.
HUGE = 1e300  # Sums and differences of less are finite.
MAX_BARS = RIGHT - LEFT  # One per unit; more share one.

Tick = tuple[formats.Number, str]  # Where, and what stands there.


@dataclasses.dataclass(frozen=True)
class Dot:
  """A point that says its value when pointed at."""

  x: float
  y: float
  text: str


@dataclasses.dataclass(frozen=True)
class Line:
  """One series, laid out."""

  name: str
  path: str  # The `d` of an SVG path; "" without points.
  dots: tuple[Dot, ...]
  last: str  # Its last value.


@dataclasses.dataclass(frozen=True)
class Plot:
  """What the template `plot` draws."""

  title: str
  label: str  # The plot in words, for who does not see it.
  lines: tuple[Line, ...] = ()
  area: str = ""  # Path of bars.
  x_ticks: tuple[Tick, ...] = ()
  y_ticks: tuple[Tick, ...] = ()
  chance_y: float | None = None
  chance: str = ""
  unit: str = ""
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Axis:
  """Maps values between `low` and `high` to units between two ends."""

  low: formats.Number
  high: formats.Number
  start: formats.Number
  end: formats.Number

  def __call__(self, value: formats.Number) -> float:
    share = (value - self.low) / (self.high - self.low)
    return round(self.start + share * (self.end - self.start), 1)


def curve_plot(curve: curves.Curve) -> Plot:
  """Lays out a curve: one line per series, dashed where chance is."""
  finite = [_finite(series.points) for series in curve.series]
  gone = sum(
    len(series.points) - len(points)
    for series, points in zip(curve.series, finite, strict=True)
  )
  notes = [f"{gone} values are not finite and left out"] if gone else []
  everything = [point for points in finite for point in points]
  if not everything:
    return Plot(curve.title, f"{curve.title}: no values", notes=tuple(notes))
  most = max(map(len, finite))
  if most > MAX_POINTS:
    notes.append(f"each point is a mean of {_group_size(most)} logged ones")
  x, x_ticks = _step_axis([step for step, _ in everything])
  y, y_ticks = _value_axis(curve, [value for _, value in everything])
  write = formats.percent if curve.percent else formats.decimal
  lines = tuple(
    _line(series.name, points, x, y, write)
    for series, points in zip(curve.series, finite, strict=True)
  )
  return Plot(
    title=curve.title,
    label=_words(curve, finite[0] or everything, write),
    lines=lines,
    x_ticks=x_ticks,
    y_ticks=y_ticks,
    chance_y=None if curve.chance is None else y(curve.chance),
    chance="" if curve.chance is None else write(curve.chance),
    unit=curve.unit,
    notes=tuple(notes),
  )


def bar_plot(title: str, values: Sequence[formats.Number]) -> Plot:
  """Lays out many bars side by side as one shape."""
  x = Axis(0, len(values), LEFT, RIGHT)
  heights = [v if abs(v) < HUGE else 0.0 for v in values]
  low, high = min([0.0, *heights]), max([0.0, *heights])
  y, y_ticks = _axis_and_ticks(low, high if high > low else low + 1)
  shape = [f"M{x(0)} {y(0)}"]
  for last, height in _merged(heights):
    shape.append(f"V{y(height)}H{x(last)}")
  shape.append(f"V{y(0)}Z")
  ticks = [t for t in _ticks(0, len(values), 5) if t == int(t)]
  return Plot(
    title=title,
    label=f"{title}: {len(values)} bars, highest {formats.decimal(high)}",
    area="".join(shape),
    x_ticks=tuple((x(t), formats.decimal(t)) for t in ticks),
    y_ticks=y_ticks,
  )


def _merged(heights):
  """Right end and height of each bar; too many share the highest."""
  size = math.ceil(len(heights) / MAX_BARS)
  for first in range(0, len(heights), size):
    group = heights[first : first + size]
    yield first + len(group), max(group, key=abs)


def _line(name, points, x, y, write):
  thin = _thin(points)
  path = "L".join(f"{x(step)} {y(value)}" for step, value in thin)
  dots = tuple(
    Dot(x(step), y(value), f"step {step:,}: {write(value)}")
    for step, value in thin
  )
  return Line(
    name=name,
    path=f"M{path}" if path else "",
    dots=dots if len(dots) <= MAX_DOTS else (),
    last=write(points[-1][1]) if points else "no value",
  )


def _finite(points: runs.Points) -> runs.Points:
  return tuple(point for point in points if abs(point[1]) < HUGE)


def _group_size(count: int) -> int:
  return math.ceil(count / MAX_POINTS)


def _thin(points: runs.Points) -> runs.Points:
  """Averages groups of neighbours until few enough points are left."""
  size = _group_size(len(points))
  if size <= 1:
    return points
  groups = [points[i : i + size] for i in range(0, len(points), size)]
  return tuple(
    (group[-1][0], sum(value for _, value in group) / len(group))
    for group in groups
  )


def _step_axis(steps):
  low, high = min(0, *steps), max(steps)
  x = Axis(low, max(high, low + 1), LEFT, RIGHT)
  return x, tuple((x(t), _short(t)) for t in _ticks(x.low, x.high, 5))


def _value_axis(curve, values):
  levels = [*values, *([] if curve.chance is None else [curve.chance])]
  low, high = min(levels), max(levels)
  if curve.from_zero:
    low, high = min(low, 0.0), max(high, 0.0)
  size = max(abs(low), abs(high))
  if high - low <= 1e-3 * size:  # A flat line stands in the middle.
    low, high = low - 1e-3 * size, high + (1e-3 * size or 1.0)
  return _axis_and_ticks(low, high, curve.percent)


def _axis_and_ticks(low, high, percent=False):
  pad = 0.05 * (high - low)
  y = Axis(low - pad * (low != 0), high + pad * (high != 0), BOTTOM, TOP)
  ticks = _ticks(y.low, y.high, 5)
  gap = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
  return y, tuple((y(t), _tick_text(t, gap, percent)) for t in ticks)


def _ticks(low, high, wanted):
  """Round numbers in a range: steps of 1, 2 or 5 times a power of ten."""
  rough = (high - low) / wanted
  power = 10.0 ** math.floor(math.log10(rough))
  gap = next(m * power for m in (1, 2, 5, 10) if m * power >= 0.999 * rough)
  first = math.ceil(low / gap - 1e-9)
  last = math.floor(high / gap + 1e-9)
  return [i * gap for i in range(first, last + 1)]


def _tick_text(value, gap, percent):
  if percent:
    value, gap = 100 * value, 100 * gap
  if abs(value) >= 10_000:
    return _short(value)
  if value and abs(gap) < 1e-4:
    return f"{value:.4g}".replace("e-0", "e-")
  digits = max(0, -math.floor(math.log10(gap) + 1e-9))
  return f"{value:,.{digits}f}" + "%" * percent


def _short(value):
  """Writes a round number: 2000 is 2,000, 20000 is 20k."""
  for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= max(size, 1e4):
      return f"{value / size:.5g}{letter}"
  return formats.decimal(value)


def _words(curve, points, write):
  """A curve in one sentence."""
  (first, start), (last, end) = points[0], points[-1]
  chance = "" if curve.chance is None else f"; chance {write(curve.chance)}"
  return (
    f"{curve.title}: {write(start)} at step {first:,}, {write(end)} at step "
    f"{last:,}{chance}"
  )
