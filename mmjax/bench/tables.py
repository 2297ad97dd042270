"""What `mmjax bench` prints, from its figures."""

from collections.abc import Mapping, Sequence
from typing import Any

# Losses of products in bfloat16 agree with float32 to three digits.
LARGEST_DIFFERENCE = 5e-3
HEADER = (
  "candidate",
  "steps/s",
  "examples/s",
  "tokens/s",
  "GFLOP/s",
  "MFU",
  "compile s",
  "temp MiB",
  "RSS MiB",
  "M params",
  "losses",
)


def heading(found: Mapping[str, Any]) -> str:
  """The machine and the libraries."""
  where = found["machine"]
  versions = ", ".join(f"{n} {v}" for n, v in found["versions"].items())
  return (
    f"{where['cores']} cores, {where['processor']}, Python {where['python']}; "
    f"load before {where['load_before']:.1f}\n{versions}"
  )


def steps(found: Mapping[str, Any]) -> str:
  """The candidates and their ratios."""
  task = found["work"]
  lines = [
    heading(found),
    f"{found.get('config', '')}: {task['kind']}, {task['batch_size']} "
    "examples a step",
    "",
    *candidates(found["candidates"]),
    "",
    *_notes(found["candidates"]),
    "",
  ]
  for name, ratio in found["ratios"].items():
    lines.append(f"{name}: {spread(ratio)}")
  return "\n".join(lines)


def candidates(figures: Mapping[str, Any]) -> list[str]:
  """A line for each candidate; below, those that could not run."""
  ran = {n: f for n, f in figures.items() if "missing" not in f}
  lines = table(HEADER, [_row(n, f) for n, f in ran.items()])
  for name in [n for n in figures if n not in ran]:
    why = figures[name]["missing"].strip().splitlines()[-1]
    lines.append(f"{name}: {why}")
  return lines


def spread(ratio: Mapping[str, float]) -> str:
  """A ratio and its range over rounds."""
  return f"{ratio['median']:.2f}x ({ratio['least']:.2f}-{ratio['most']:.2f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of columns; the first is aligned to the left."""
  widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
  return [
    "  ".join(
      cell.ljust(width) if i == 0 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths, strict=True))
    ).rstrip()
    for row in (header, *rows)
  ]


def _row(name: str, figures: Mapping[str, Any]) -> list[str]:
  def number(key: str, scale: float = 1.0, digits: int = 0) -> str:
    value = figures.get(key)
    return f"{value / scale:,.{digits}f}" if value else "-"

  mfu = figures.get("mfu")
  return [
    name,
    number("steps_per_sec", digits=2),
    number("examples_per_sec", digits=1),
    number("tokens_per_sec"),
    number("flops_per_sec", 1e9, 1),
    f"{mfu:.0%}" if mfu else "-",
    number("compile_secs", digits=1),
    number("temp_bytes", 2.0**20),
    number("rss_growth_bytes", 2.0**20),
    number("params", 1e6, 1),
    losses(figures),
  ]


def losses(figures: Mapping[str, Any]) -> str:
  """How far they are from float32, or where they go."""
  if (off := figures.get("parity")) is not None:
    verdict = "" if off <= LARGEST_DIFFERENCE else " OFF"
    return f"±{off:.1e}{verdict}"
  values = figures.get("losses")
  return f"{values[0]:.3f}>{values[-1]:.3f}" if values else "-"


def _notes(figures: Mapping[str, Any]) -> list[str]:
  notes = [
    "MFU: FLOPs of the model over those of a large product of the same dtype, "
    "in the same rounds.",
    "losses: of 8 steps on one batch; of bfloat16 the largest relative "
    "difference to float32.",
  ]
  for name, said in figures.items():
    if share := said.get("mfu_datasheet"):
      notes.append(f"{name}: {share:.1%} of the datasheet's bfloat16 FLOP/s")
  return notes
