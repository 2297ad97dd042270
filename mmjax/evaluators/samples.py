"""Picks the examples that a report shows."""

from collections.abc import Iterable, Mapping

import numpy as np


def spread(
  batches: Iterable[Mapping[str, np.ndarray]], count: int
) -> tuple[dict[str, np.ndarray], int]:
  """Makes one batch of examples from all over a split.

  Sets are often sorted, so that their first examples are all alike.

  Returns:
    A batch as large as the first one, which begins with up to `count`
    examples at equal distances (the rest repeats the last), and their number.
  """
  columns: dict[str, list[np.ndarray]] = {}
  size = 0
  for batch in batches:
    real = batch["example_mask"]
    size = size or len(real)
    for name, values in batch.items():
      columns.setdefault(name, []).append(values[real])
  rows = {name: np.concatenate(parts) for name, parts in columns.items()}
  total = len(rows["example_mask"])
  count = min(count, total, size)
  picked = np.linspace(0, total - 1, count).round().astype(int)
  picked = np.pad(picked, (0, size - count), mode="edge")
  return {name: values[picked] for name, values in rows.items()}, count
