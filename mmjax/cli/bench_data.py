"""Measures the input pipeline, beside others on the same machine.

  mmjax bench data --json=bench.json
  mmjax bench data --parts=pictures --rounds=9

Needs about five minutes and a quiet machine. Peers that are not installed are
left out: pip install 'mmjax[bench]' tensorflow-cpu
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag(
    "parts",
    "pictures,read,start,memory,mixture",
    "what to measure, separated by commas",
  ),
  Flag("rounds", 5, "samples of each candidate, in another order each round"),
  Flag("secs", 3.0, "time of a sample"),
  Flag("pictures", 1000, "files that are made to read"),
  Flag("long", False, "looks at memory over 200,000 examples, not 20,000"),
  Flag("json", "", "file for the figures"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  arguments.ready_for_grain()
  from mmjax.bench import data

  found = data.run(
    [part for part in flags.parts.split(",") if part],
    num_pictures=flags.pictures,
    num_rounds=flags.rounds,
    secs=flags.secs,
    examples=200_000 if flags.long else 20_000,
    say=lambda text: print(f"  {text.splitlines()[-1]}", file=sys.stderr),
  )
  print(data.describe(found))
  if flags.json:
    Path(flags.json).write_text(json.dumps(found, indent=1), "utf-8")
  return 0
