r"""Trains a text tokenizer on the texts of any source.

  mmjax tokenizer train --source=manifest:pets.jsonl --field=text,question \
    --kind=unigram --vocab_size=8000 --out=tok.json

Then `--config.data.text.tokenizer=tok.json` uses it. A source is written as
for `mmjax data prepare`, or is a file of texts, one a line, that ends in .txt.
"""

from collections.abc import Sequence

from rich import console as rich_console
from rich import progress as rich_progress

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("source", "", "what to read: KIND:PATH or a path", required=True),
  Flag("field", "text", "fields with the texts, separated by commas"),
  Flag("split", "train", "split of the source"),
  Flag("data_dir", "", "where TFDS data lie"),
  Flag("text", "", "column of a table that is `text`"),
  Flag("kind", "bpe", "bpe or unigram, both on bytes"),
  Flag("vocab_size", 8192, "entries, special tokens included"),
  Flag("out", "", "JSON file to write", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  arguments.ready_for_grain()
  from mmjax.build import text_tokenizers

  console = rich_console.Console(highlight=False, soft_wrap=True)
  with rich_progress.Progress(
    console=console, disable=not console.is_terminal, transient=True
  ) as bar:
    task = bar.add_task("texts", total=None)
    trained = text_tokenizers.train(
      flags.source,
      flags.out,
      vocab_size=flags.vocab_size,
      kind=flags.kind,
      fields=tuple(filter(None, flags.field.split(","))),
      split=flags.split,
      data_dir=flags.data_dir,
      columns={"text": flags.text} if flags.text else {},
      on_progress=lambda done, total: bar.update(
        task, completed=done, total=total
      ),
    )
  print(f"{flags.out}: {trained.tokenizer.describe()}")
  print(f"  {trained.num_texts:,} texts; the first: {trained.fit.describe()}")
  if trained.num_broken:
    print(f"  {trained.num_broken:,} examples could not be read")
  print(f"  for example: {trained.example}")
  return 0
