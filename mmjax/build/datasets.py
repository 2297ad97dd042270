"""Work on data alone: checking a set, training a tokenizer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmjax.core import errors, registry
from mmjax.data import check as check_lib
from mmjax.data import files, sources
from mmjax.data import prepare as prepare_lib
from mmjax.data.tokenizer import TextTokenizer


def check(path: str, split: str = "") -> tuple[check_lib.CheckResult, str]:
  """Looks at a data set; returns what was found, and as text."""
  result = check_lib.check(path, split)
  return result, check_lib.format_result(result)


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
    options: fields of `prepare.PrepareOptions`.
    data_dir: where TFDS data lie.
    columns: field -> column of a table.
    task: one of `TASKS`: the first example has to have its fields.
    workers: threads.
    on_progress: told examples done, of how many.

  Raises:
    UserError: no such source, or not what the task needs.
  """
  made = registry.construct("prepare", prepare_lib.PrepareOptions, options)
  source = _open(spec, split, data_dir, columns)
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


def _open(spec, split, data_dir, columns) -> sources.Source:
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


def train_tokenizer(source: Path, vocab_size: int, out: Path) -> TextTokenizer:
  """Trains a tokenizer on the lines of a file and saves it.

  Raises:
    UserError: no such file, or one without text.
  """
  if not source.is_file():
    raise errors.UserError(
      f"No file at {str(source)!r}: expected a text file, one text a line."
    )
  lines = source.read_text(encoding="utf-8").splitlines()
  texts = [line for line in lines if line.strip()]
  if not texts:
    raise errors.UserError(f"{str(source)!r} has no text.")
  made = TextTokenizer.train(texts, vocab_size)
  made.save(out)
  return made
