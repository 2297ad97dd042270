"""Writes vectors of texts and files, by the encoders of a trained model.

  mmjax embed --workdir=runs/emoji --inputs=pictures/ --out=pictures.npz
  mmjax embed --workdir=runs/emoji --inputs=pairs.jsonl --out=pairs.npz

Of a folder: its pictures, recordings and clips, by their endings. Of a file of
JSON lines: {"text": "red apple", "image": "apple.png", "audio": ..., "video":
..., "id": ...}, any of them, paths relative to the file. F.npz holds an array
for each modality, rows in the order of the inputs, and their `paths` or `ids`.
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence

from rich import console as rich_console
from rich import progress as rich_progress

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder or URL of a training run", required=True),
  Flag("inputs", "", "folder of files, or file of JSON lines", required=True),
  Flag("out", "", "file to write, *.npz", required=True),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
  Flag("modality", "", "embed only these, separated by commas"),
  Flag(
    "pool",
    "",
    "shared, pooled, mean, first or tokens; default: shared, of a model that "
    "has learned a shared space, else pooled",
  ),
  Flag("normalize", False, "make the vectors' length 1; that of shared is"),
  Flag("batch_size", 32, "inputs that are computed at once"),
  Flag(
    "task", "", "the task whose transforms files go through; default: first"
  ),
  Flag("skip_bad", False, "leave out what cannot be used, and count it"),
  Flag("overwrite", False, "replace --out, if it is there, when all is done"),
)
EVERY_SECS = 30.0  # Between two lines of progress, where there is no terminal.


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend

  backend.set_up()
  from mmjax.build import (
    checkpoints,
    embedding,
    embedding_file,
    embedding_inputs,
    embedding_run,
  )
  from mmjax.train import url_folder

  # Before the checkpoint is read: what is wrong with them is known now.
  out = embedding_file.check_out(flags.out, overwrite=flags.overwrite)
  settings = embedding.EmbedSettings(
    pool=flags.pool,
    normalize=flags.normalize,
    batch_size=flags.batch_size,
    task=flags.task,
  )
  checkpoints.which(flags.step)
  only = [name.strip() for name in flags.modality.split(",") if name.strip()]
  skipped = embedding_inputs.Skipped(flags.skip_bad)
  given = embedding_inputs.open_inputs(flags.inputs, only, skipped)
  few = min(flags.batch_size, len(given))
  settings = dataclasses.replace(settings, batch_size=few)
  workdir = url_folder.fetched(flags.workdir, flags.step)
  config = arguments.load_saved(workdir, overrides)
  made, step, state = checkpoints.restore(config, workdir, flags.step)
  embedder = embedding.Embedder(made, state.ema_variables, settings)
  embedder.check(given.modalities)
  with _progress() as on_progress, embedding_file.writing(out) as table:
    done = embedding_run.embed_all(embedder, given, skipped, table, on_progress)
  print(f"{out}: {flags.workdir}, step {step}, pool {embedder.pool}")
  for line in _lines(done, given, skipped):
    print(f"  {line}")
  return 0


@contextlib.contextmanager
def _progress():
  """A bar on a terminal, lines elsewhere."""
  console = rich_console.Console(highlight=False, soft_wrap=True, stderr=True)
  with rich_progress.Progress(
    console=console, disable=not console.is_terminal, transient=True
  ) as bar:
    task = bar.add_task("embed", total=None)
    said = time.monotonic()

    def on_progress(done, total):
      nonlocal said
      bar.update(task, completed=done, total=total)
      if not console.is_terminal and time.monotonic() - said > EVERY_SECS:
        said = time.monotonic()
        console.print(f"embed {done:,}/{total:,}")

    yield on_progress


def _lines(done, given, skipped):
  for name, shape in done.shapes.items():
    if name in done.present:
      lacking = done.num_rows - done.present[name]
      note = f", {lacking:,} lack it" if lacking else ""
      yield f"{name}: {' x '.join(f'{n:,}' for n in shape)}{note}"
  if done.num_cut:
    yield f"{done.num_cut:,} texts are longer than what the model reads: cut"
  if given.num_others:
    yield f"{given.num_others:,} files of other kinds are left out"
  if skipped.count:
    yield f"{skipped.count:,} cannot be used and are left out, the first:"
    yield from (f"  {reason}" for reason in skipped.first)
