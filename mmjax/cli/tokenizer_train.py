"""Trains a text tokenizer (byte-level BPE) on lines of text.

mmjax tokenizer train --source=texts.txt --vocab_size=8000 --out=tok.json
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("source", "", "text file, one text a line", required=True),
  Flag("vocab_size", 8192, "entries, special tokens included"),
  Flag("out", "", "JSON file to write", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.build import datasets

  made = datasets.train_tokenizer(
    Path(flags.source), flags.vocab_size, Path(flags.out)
  )
  print(f"{flags.out}: {made.vocab_size} tokens, id {made.id}")
  return 0
