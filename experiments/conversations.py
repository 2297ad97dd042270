r"""Writes conversations made by templates as JSONL, with their pictures.

python experiments/conversations.py --out=talk --split=unseen_artist --limit=20

`data.source="conversations"` with `data.path=talk` then reads them; the format
is in docs/conversations.md.
"""

import argparse
from pathlib import Path

from mmjax.data import conversations, open_source


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--source", default="starter_conversations")
  parser.add_argument("--split", default="train")
  parser.add_argument("--limit", type=int, default=1000)
  parser.add_argument("--out", type=Path, required=True)
  args = parser.parse_args()
  source = open_source(args.source, split=args.split)
  count = min(args.limit, len(source))
  examples = (source[i] for i in range(count))
  written = conversations.write(examples, args.out, args.split)
  print(f"{args.out / args.split}.jsonl: {written} conversations")


if __name__ == "__main__":
  main()
