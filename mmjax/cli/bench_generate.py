"""Measures how fast the decoder of a config says texts.

  mmjax bench generate --config=configs/finetune/caption.py
  mmjax bench generate --config=C --rows=1,8 --tokens=24 --json=speed.json

Time to the first token (inputs placed, encoders, prompt, one token), and tokens
a second of all texts together, from beginning to end. Weights are random: they
make no difference.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("rows", "1,16", "texts at a time, separated by commas"),
  Flag("tokens", 16, "tokens of each text"),
  Flag("prompt_tokens", 2, "tokens of the prompts, begin included"),
  Flag("strategy", "greedy", "greedy or sample"),
  Flag("objective", "", "which of the config's objectives says it"),
  Flag("rounds", 5, "samples of each number of rows, in turn"),
  Flag("json", "", "file for the figures"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  rows = _numbers(flags.rows)
  if flags.strategy == "beam":
    raise errors.UserError(
      "strategy='beam': a beam search has no first token; greedy or sample."
    )
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.bench import generation
  from mmjax.build.generation import GenerationSettings

  found = generation.run(
    arguments.load_config(flags.config, overrides),
    GenerationSettings(
      strategy=flags.strategy,
      max_tokens=flags.tokens,
      objective=flags.objective,
    ),
    rows=rows,
    prompt_tokens=flags.prompt_tokens,
    num_rounds=flags.rounds,
    say=lambda text: print(f"  {text}", file=sys.stderr),
  )
  print(generation.describe(found))
  if flags.json:
    Path(flags.json).write_text(json.dumps(found, indent=1), "utf-8")
  return 0


def _numbers(text: str) -> list[int]:
  try:
    return [int(part) for part in text.split(",")]
  except ValueError:
    raise errors.UserError(
      f"rows={text!r}, expected numbers separated by commas."
    ) from None
