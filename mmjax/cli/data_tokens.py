"""Writes the codes of a data set once, so that training need not compute them.

  mmjax data tokens --tokenizer=runs/tokenizer --config=CONFIG.py \
      --split=train,unseen_artist --out=codes

Then `data.codes=dict(path="codes")` of CONFIG reads them. Goes on where it was
left.
"""

from collections.abc import Sequence

from rich import console as rich_console
from rich import progress as rich_progress

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag("tokenizer", "", "workdir of a tokenizer; default: as --config starts"),
  Flag("config", "", "config whose data are coded; default: the tokenizer's"),
  Flag("source", "", "another source than the config's"),
  Flag("path", "", "where it lies, if not where the config says"),
  Flag("split", "", "splits, separated by commas; default: the config's"),
  Flag("modality", "", "image, video or audio; default: the first there is"),
  Flag("out", "", "folder to write", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  if not (flags.tokenizer or flags.config):
    raise errors.UserError(
      "Give --tokenizer=WORKDIR, --config=FILE, or both: the tokenizer, and "
      "what it makes codes of."
    )
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.build import cached_codes
  from mmjax.train import url_folder

  data = saved = None
  if flags.config:
    data = arguments.load_config(flags.config, overrides)
    data = cached_codes.without_codes(data)
  if flags.tokenizer:
    workdir = url_folder.fetched(flags.tokenizer)
    saved = arguments.load_saved(workdir, [] if flags.config else overrides)
  if data is None or flags.source or flags.path:
    data = cached_codes.of_source(data or saved, flags.source, flags.path)
  if saved is not None:
    coder = cached_codes.of_run(saved, workdir, data, flags.modality)
  else:
    coder = cached_codes.of_config(data, flags.modality)
  console = rich_console.Console(highlight=False, soft_wrap=True)
  for split in (flags.split or data.data.split).split(","):
    folder = _write(coder, split, flags.out, console)
    print(f"{folder}: codes of {coder.modality!r}, tokenizer {coder.tokenizer}")
  return 0


def _write(coder, split, out, console):
  with rich_progress.Progress(
    console=console, disable=not console.is_terminal, transient=True
  ) as bar:
    task = bar.add_task(split, total=None)

    def on_progress(done, total):
      bar.update(task, completed=done, total=total)

    return coder.write(split, out, on_progress)
