"""Writes a data set as shards that training reads fast, in any order.

  mmjax data prepare --source=folder:path/to/pets --out=pets --image_size=256

Then `--config.data.source=files --config.data.path=pets` trains on it. Goes on
where it was left.

A source is KIND:PATH with KIND one of files, folder, manifest, tar, arrow; a
path alone; tfds:NAME (the flag data_dir says where); or module:Class.
"""

from collections.abc import Sequence

from rich import console as rich_console
from rich import progress as rich_progress

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

COLUMNS = (
  "image",
  "text",
  "audio",
  "video",
  "label",
  "question",
  "answer",
  "messages",
)
FLAGS = (
  Flag("source", "", "what to read", required=True),
  Flag("out", "", "folder to write", required=True),
  Flag("split", "train", "splits, separated by commas"),
  Flag("data_dir", "", "where TFDS data lie"),
  Flag("task", "", "checks its fields: caption, classify, vqa, transcribe"),
  Flag("workers", 2, "threads that read and encode"),
  Flag("image_size", 0, "shorter side of larger pictures; 0 = as they are"),
  Flag("duplicates", "keep", "keep, or leave out: exact, similar pictures"),
  Flag("min_text", 0, "least characters of `text`"),
  Flag("max_text", 0, "most characters of `text`; 0 = any"),
  Flag("script", "", "at least half of the letters: latin, han, ..."),
  Flag("max_aspect", 0.0, "longer by shorter side of pictures; 0 = any"),
  *(Flag(name, "", f"column of a table that is `{name}`") for name in COLUMNS),
)
OPTIONS = (
  "image_size",
  "duplicates",
  "min_text",
  "max_text",
  "script",
  "max_aspect",
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  arguments.ready_for_grain()
  from mmjax.build import datasets

  columns = {n: getattr(flags, n) for n in COLUMNS if getattr(flags, n)}
  console = rich_console.Console(highlight=False, soft_wrap=True)
  for split in flags.split.split(","):
    with rich_progress.Progress(
      console=console, disable=not console.is_terminal, transient=True
    ) as bar:
      task = bar.add_task(split, total=None)
      outcome = datasets.prepare(
        flags.source,
        flags.out,
        split=split,
        data_dir=flags.data_dir,
        columns=columns,
        task=flags.task,
        workers=flags.workers,
        options={name: getattr(flags, name) for name in OPTIONS},
        on_progress=lambda done, total, bar=bar, task=task: bar.update(
          task, completed=done, total=total
        ),
      )
    print(f"{outcome.folder}: {outcome.written:,} of {outcome.read:,} examples")
    for reason, count in sorted(outcome.left_out.items()):
      print(f"  {count:8,}  {reason}")
  return 0
