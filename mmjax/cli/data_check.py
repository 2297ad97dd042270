"""Shows what is in a data set: counts, shapes, examples, what is broken.

mmjax data check starter_emoji --split=train
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors

FLAGS = (Flag("split", "", "split to look at; default: all"),)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  paths = [a for a in argv if not a.startswith("-")]
  rest = [a for a in argv if a.startswith("-")]
  flags = arguments.parse(__doc__, FLAGS, rest)
  if len(paths) != 1:
    raise errors.UserError(
      f"Expected one data set, got {paths}. E.g. "
      "`mmjax data check starter_emoji`, or the path of prepared data."
    )
  from mmjax.build import datasets

  result, text = datasets.check(paths[0], flags.split)
  print(text)
  return 2 if result.broken else 0
