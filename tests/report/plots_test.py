import math
import re

import numpy as np
import pytest

from mmjax.report import plots
from mmjax.report.curves import Curve, Series


def _curve(*values, **options):
  points = tuple((10 * i, float(v)) for i, v in enumerate(values))
  return Curve("mlm", (Series("training", points),), **options)


def _points(path):
  numbers = [float(n) for n in re.findall(r"-?[\d.]+", path)]
  return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_a_line_fills_the_frame():
  plot = plots.curve_plot(_curve(4.0, 3.0, 2.0))
  points = _points(plot.lines[0].path)
  # 5% of room below and above.
  height = plots.BOTTOM - plots.TOP
  edge = height * 0.05 / 1.1
  np.testing.assert_allclose(
    points,
    [
      (plots.LEFT, plots.TOP + edge),
      ((plots.LEFT + plots.RIGHT) / 2, plots.TOP + height / 2),
      (plots.RIGHT, plots.BOTTOM - edge),
    ],
    atol=0.051,  # Coordinates have one digit.
  )


def test_chance_is_inside_of_the_frame_also_far_from_the_line():
  plot = plots.curve_plot(_curve(1.0, 0.5, chance=9.0))
  assert (
    plots.TOP < plot.chance_y < min(y for _, y in _points(plot.lines[0].path))
  )
  assert plot.chance == "9"


def test_values_that_are_not_finite_are_left_out_and_told():
  plot = plots.curve_plot(_curve(4.0, math.nan, math.inf, 2.0))
  assert len(_points(plot.lines[0].path)) == 2
  assert plot.notes == ("2 values are not finite and left out",)


def test_no_finite_value_is_no_line():
  plot = plots.curve_plot(_curve(math.nan))
  assert plot.lines == ()
  assert plot.label == "mlm: no values"


@pytest.mark.parametrize("value", [0.0, 5.0, -1e-12, 1e30, -1e299])
def test_a_flat_line_is_drawn(value):
  plot = plots.curve_plot(_curve(value, value))
  assert all(
    plots.TOP <= y <= plots.BOTTOM for _, y in _points(plot.lines[0].path)
  )


@pytest.mark.parametrize("value", [1234.5, 8.98712, 0.0501, 87_654.0, 3e-6])
def test_ticks_of_a_nearly_flat_line_differ_and_are_short(value):
  plot = plots.curve_plot(_curve(value, value * (1 + 1e-5)))
  labels = [text for _, text in plot.y_ticks]
  assert len(set(labels)) == len(labels) >= 2
  assert max(map(len, labels)) <= 8


def test_one_point_is_drawn():
  plot = plots.curve_plot(_curve(5.0))
  assert len(plot.lines[0].dots) == 1


def test_long_logs_are_averaged_in_groups():
  values = np.arange(3000) % 2
  plot = plots.curve_plot(_curve(*values))
  points = _points(plot.lines[0].path)
  assert len(points) == plots.MAX_POINTS
  assert len({y for _, y in points}) == 1  # All means are 0.5.
  assert plot.notes == ("each point is a mean of 10 logged ones",)


def test_shares_are_labelled_in_percent():
  plot = plots.curve_plot(_curve(0.1, 0.55, percent=True, from_zero=True))
  labels = [text for _, text in plot.y_ticks]
  assert labels == ["0%", "20%", "40%"]
  assert plot.lines[0].last == "55.0%"


@pytest.mark.parametrize(
  "low, high, expected",
  [
    (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
    (0.3, 0.9, [0.4, 0.6, 0.8]),
    (-1.0, 1.0, [-1, -0.5, 0, 0.5, 1]),
    (995.0, 1007.0, [995, 1000, 1005]),
  ],
)
def test_ticks_are_round(low, high, expected):
  np.testing.assert_allclose(plots._ticks(low, high, 5), expected, atol=1e-12)


def test_bars_reach_from_zero_to_their_height():
  plot = plots.bar_plot("usage", [4.0, 2.0, 0.0])
  heights = [float(y) for y in re.findall(r"V([\d.]+)", plot.area)]
  top, zero = heights[0], heights[-1]
  assert (zero - heights[1]) * 2 == pytest.approx(zero - top, abs=0.2)
  assert heights[2] == zero == plots.BOTTOM


def test_thousands_of_bars_keep_their_highest():
  values = [1.0] * 8192
  values[5000] = 100.0
  plot = plots.bar_plot("usage", values)
  heights = [float(y) for y in re.findall(r"V([\d.]+)", plot.area)]
  assert len(heights) <= plots.MAX_BARS + 1
  assert sum(y < plots.BOTTOM / 2 for y in heights) == 1


@pytest.mark.parametrize("values", [[0.0], [math.nan, math.inf], [-2.0, 3.0]])
def test_any_bars_are_drawn(values):
  plot = plots.bar_plot("usage", values)
  assert "nan" not in plot.area and "inf" not in plot.area
