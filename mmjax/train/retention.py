"""Which step folders are there, which stay, which go.

Folders under the checkpoint directory: `<step>` is whole, whatever else
(`<step>.orbax-checkpoint-tmp`, `damaged-<step>`, `deleted-<step>`) is no step.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from mmjax.train import manifest


def saved_steps(directory: Path) -> list[int]:
  """Steps that Orbax committed, in order."""
  if not directory.is_dir():
    return []
  return sorted(
    int(p.name)
    for p in directory.iterdir()
    if p.name.isdecimal() and p.is_dir()
  )


def rank(
  steps: Iterable[int], value_of: Callable[[int], float | None], mode: str
) -> list[int]:
  """Steps that have a value, the best first; of equals the newer first."""
  sign = 1.0 if mode == "max" else -1.0
  values = {step: value_of(step) for step in steps}
  known = {step: v for step, v in values.items() if v is not None}
  return sorted(known, reverse=True, key=lambda s: (sign * known[s], s))


def delete_old(
  directory: Path,
  *,
  newest: int,
  keep: int,
  best: Callable[[Sequence[int]], Sequence[int]],
) -> None:
  """Deletes all but the newest `keep` whole steps and the best one.

  A step without a manifest is not counted as whole. To be called when
  `newest` has its manifest, so a good step always stays.
  """
  saved = [s for s in saved_steps(directory) if s <= newest]
  whole = [s for s in saved if manifest.exists(directory / str(s))]
  kept = {*whole[-keep:], newest, *best(whole)[:1]}
  for step in saved:
    if step not in kept:
      # Under another name first: half a deleted step must not look like one.
      _move(directory / str(step), directory / f"deleted-{step}")
  for folder in directory.glob("deleted-*"):
    shutil.rmtree(folder, ignore_errors=True)


def set_aside(directory: Path, steps: Iterable[int]) -> None:
  """Renames damaged steps to `damaged-<step>`."""
  for step in set(steps) & set(saved_steps(directory)):
    _move(directory / str(step), directory / f"damaged-{step}")


def _move(folder: Path, target: Path) -> None:
  shutil.rmtree(target, ignore_errors=True)
  folder.rename(target)
