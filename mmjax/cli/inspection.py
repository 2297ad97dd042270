"""Prints what a config describes, without training it.

  mmjax inspect --config=configs/quickstart/pretrain.py

Parameters with their axes and bytes, fields of the batch, shardings, FLOPs per
example, chance level of each objective.
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("config", "", "config file, FILE or FILE:arg", required=True),
  Flag("shardings", False, "one row per parameter with its placement"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  config = arguments.load_config(flags.config, overrides)
  from mmjax.build import description

  print(description.describe(config, shardings=flags.shardings))
  return 0
