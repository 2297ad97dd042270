"""Work on data alone: checking a set, preparing it."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmjax.core import errors, registry
from mmjax.data import check as check_lib
from mmjax.data import contact_sheet, files, prepare_example, sources
from mmjax.data import prepare as prepare_lib
from mmjax.data.tokenizer import STARTER


def check(
  path: str, split: str = "", tokenizer: str = STARTER
) -> tuple[check_lib.CheckResult, str]:
  """Looks at a data set; returns what was found, and as text."""
  result = check_lib.check(path, split, tokenizer=tokenizer)
  return result, check_lib.format_result(result)


def tiles(
  path: str, result: check_lib.CheckResult, count: int
) -> dict[str, list[contact_sheet.Tile]]:
  """Some examples of each split that was looked at, with their pictures."""
  return {
    split: contact_sheet.tiles(check_lib.open_any(path, split), split, count)
    for split in result.checked
  }


def write_png(
  file: Path, splits: Mapping[str, Sequence[contact_sheet.Tile]]
) -> None:
  """Draws the tiles of all splits as one picture."""
  shown = [tile for of_split in splits.values() for tile in of_split]
  contact_sheet.write_png(file, shown)


# Task -> fields of which each example needs one or, of a tuple, any.
TASKS = {
  "caption": (("image", "video"), "text"),
  "classify": (("image", "audio", "video", "text"), "label"),
  "transcribe": ("audio", "text"),
  "vqa": (("image", "video"), "question", "answer"),
}


def prepare(
  spec: str,
  out: str,
  *,
  split: str,
  options: Mapping[str, Any],
  data_dir: str = "",
  columns: Mapping[str, str] | None = None,
  task: str = "",
  workers: int = 2,
  on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> prepare_lib.Outcome:
  """Writes a split of a source as shards.

  Args:
    spec: "KIND:PATH" with a kind of files, "tfds:NAME", "module:Class" or a
      path.
    out: folder to write.
    split: name of the split.
    options: fields of `prepare_example.PrepareOptions`.
    data_dir: where TFDS data lie.
    columns: field -> column of a table.
    task: one of `TASKS`: the first example has to have its fields.
    workers: threads.
    on_progress: told examples done, of how many.

  Raises:
    UserError: no such source, or not what the task needs.
  """
  made = registry.construct("prepare", prepare_example.PrepareOptions, options)
  source = open_spec(spec, split, data_dir, columns)
  if task:
    _check_task(task, source)
  return prepare_lib.prepare(
    source,
    Path(out).expanduser(),
    name=spec,
    split=split,
    options=made,
    workers=workers,
    on_progress=on_progress,
  )


def open_spec(
  spec: str, split: str, data_dir: str, columns: Mapping[str, str] | None
) -> sources.Source:
  """Opens what `prepare` and the tokenizer take as a source; see `prepare`."""
  kind, colon, path = spec.partition(":")
  if colon and (kind in files.KINDS or kind == "files"):
    return sources.open_source(kind, split=split, path=path, columns=columns)
  if kind == "tfds" or (colon and "//" not in spec) or spec in sources.SOURCES:
    return sources.open_source(
      spec, split=split, path=data_dir, columns=columns
    )
  return sources.open_source("files", split=split, path=spec, columns=columns)


def _check_task(task: str, source: sources.Source) -> None:
  if task not in TASKS:
    raise errors.unknown("task", task, TASKS)
  first = source[0]
  for wanted in TASKS[task]:
    names = (wanted,) if isinstance(wanted, str) else wanted
    if not any(name in first for name in names):
      raise errors.UserError(
        f"The task {task!r} needs the field {' or '.join(map(repr, names))}; "
        f"the first example has {sorted(first)}. Name its column, e.g. "
        f"--{names[0]}=COLUMN."
      )
