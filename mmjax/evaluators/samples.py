"""Picks examples of a split: to be shown, or one of each that are alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

VISIBLE = ("image", "video")


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


def firsts(
  batches: Iterable[Mapping[str, np.ndarray]], field: str
) -> Iterator[dict[str, np.ndarray]]:
  """Batches of the first example of each value of a field, in order.

  They are as large as those that come in; the last is filled up with
  `example_mask` False.
  """
  seen: set[Any] = set()
  waiting: dict[str, np.ndarray] = {}
  size = 0
  for batch in batches:
    size = size or len(batch["example_mask"])
    rows = []
    for i in np.flatnonzero(batch["example_mask"]):
      if batch[field][i] not in seen:
        seen.add(batch[field][i])
        rows.append(i)
    new = {name: values[rows] for name, values in batch.items()}
    waiting = {
      name: np.concatenate([waiting[name], values]) if waiting else values
      for name, values in new.items()
    }
    if len(waiting["example_mask"]) >= size:
      yield {name: values[:size] for name, values in waiting.items()}
      waiting = {name: values[size:] for name, values in waiting.items()}
  count = len(waiting["example_mask"]) if waiting else 0
  if count:
    rows = np.minimum(np.arange(size), count - 1)
    yield {
      **{name: values[rows] for name, values in waiting.items()},
      "example_mask": np.arange(size) < count,
    }


def take(
  batches: Iterable[Mapping[str, np.ndarray]],
  modality: str,
  rows: Iterable[int],
) -> dict[int, np.ndarray]:
  """What a person sees of some examples, by their place among the real ones.

  Of a clip, the frame in the middle. Nothing of what is no picture.
  """
  wanted, start = set(rows), 0
  found: dict[int, np.ndarray] = {}
  for batch in batches:
    seen = looks(batch, (modality,))
    if seen is None:
      return {}
    seen = seen[batch["example_mask"]]
    for row in wanted & set(range(start, start + len(seen))):
      found[row] = seen[row - start]
    start += len(seen)
  return found


def looks(
  batch: Mapping[str, np.ndarray], modalities: Sequence[str] = VISIBLE
) -> np.ndarray | None:
  """What a person sees of the first modality that has pictures, `b h w c`."""
  for modality in modalities:
    shown = batch.get(modality)
    if shown is None:
      continue
    if modality == "video":  # The frame in the middle.
      shown = shown[:, shown.shape[1] // 2]
    if shown.ndim == 4:  # Not waveforms or bags of patches.
      return shown
  return None


def described(
  batch: Mapping[str, np.ndarray],
  *,
  columns: Sequence[str],
  rows: Sequence[Sequence[str]],
  captions: Sequence[str],
) -> tuple[str, dict[str, Any]]:
  """Kind and data of an `Artifact` that shows the first examples of a batch.

  Args:
    batch: of the examples.
    columns: names of what is said of them.
    rows: what is said, for a table if they have no pictures.
    captions: what is said, in one text each, to stand below their pictures.
  """
  seen = looks(batch)
  if seen is None:
    return "table", {"columns": list(columns), "rows": [list(r) for r in rows]}
  return "pairs", {
    "columns": ["picture"],
    "images": seen[: len(captions), None],
    "captions": list(captions),
  }
