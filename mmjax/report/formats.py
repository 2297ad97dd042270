"""Writes numbers the way people read them."""

import datetime
import math
import re
from typing import Any

Number = float | int

# Metrics between 0 and 1 that are shares of something, by the end of a name.
SHARES = re.compile(
  r"(^|[/_])(R@\d+|top\d+|accuracy|usage|majority|input_wait_fraction|mfu)$"
)
DECIBELS = re.compile(r"(^|[/_])psnr$")


def number(value: Any) -> float | None:
  """Reads a number of a log, where "nan", "inf" and "-inf" are strings."""
  if isinstance(value, bool) or not isinstance(value, (int, float, str)):
    return None
  try:
    return float(value)
  except (ValueError, OverflowError):
    return None


def decimal(value: Number) -> str:
  """Writes four significant digits, thousands with commas."""
  if not math.isfinite(value):
    return str(value)
  if 1e15 > abs(value) >= 1000 or value == int(value) < 1000:
    return f"{value:,.0f}"
  return f"{value:.4g}"


def percent(value: Number) -> str:
  """Writes a share with one digit behind the point: 0.123 is 12.3%."""
  return f"{100 * value:.1f}%" if math.isfinite(value) else str(value)


def is_share(name: str) -> bool:
  """Whether a metric of this name is a share, by convention."""
  return SHARES.search(name) is not None


def metric(name: str, value: Number) -> str:
  """Writes the value of a metric; its name says how."""
  if is_share(name) and 0.0 <= value <= 1.0:
    return percent(value)
  unit = " dB" if DECIBELS.search(name) else ""
  return decimal(value) + unit


def count(value: Number) -> str:
  """Writes a large number with three digits: 2,412,345 is 2.41 M."""
  for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
    if abs(value) >= 0.9995 * size:
      scaled = value / size
      digits = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
      return f"{scaled:.{digits}f} {letter}"
  return decimal(value)


def duration(secs: Number) -> str:
  """Writes seconds as 42 s, 7 min 05 s or 3 h 20 min."""
  if not abs(secs) < 1e12:
    return "unknown"
  secs = round(secs)
  if secs < 60:
    return f"{secs} s"
  if secs < 3600:
    return f"{secs // 60} min {secs % 60:02d} s"
  return f"{secs // 3600} h {secs % 3600 // 60:02d} min"


def instant(time: Number) -> str:
  """Writes seconds since 1970 as a date with minutes, in UTC."""
  try:
    moment = datetime.datetime.fromtimestamp(time, datetime.timezone.utc)
  except (ValueError, OverflowError, OSError):
    return "at an unknown time"
  return moment.strftime("%Y-%m-%d %H:%M UTC")
