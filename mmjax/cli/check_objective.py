"""Tries an objective on a tiny model: does it keep to the contract?

mmjax check objective my_objective:Mine --options='{"num_levels": 4}'
"""

import json
from collections.abc import Sequence

from mmjax.cli import arguments, backend
from mmjax.cli.arguments import Flag
from mmjax.core import config as config_lib
from mmjax.core import errors

FLAGS = (
  Flag("options", "{}", "fields of the objective, as JSON"),
  Flag("model", "{}", "sections of the tiny model to change, as JSON"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  names = [a for a in argv if not a.startswith("-")]
  flags = arguments.parse(
    __doc__, FLAGS, [a for a in argv if a.startswith("-")]
  )
  if len(names) != 1:
    raise errors.UserError(
      f"Expected one objective, got {names}. E.g. `mmjax check objective "
      "masked_lm`, or `my_objective:Mine` of your own file."
    )
  options, model = (_read(flags, name) for name in ("options", "model"))
  config_lib.search(".")
  backend.fake_devices(8)
  backend.set_up()
  from mmjax.build import conformance

  findings = conformance.check_objective(names[0], options, model)
  print(f"{names[0]}\n{conformance.describe(findings)}")
  return 2 if any(f.passed is False for f in findings) else 0


def _read(flags, name):
  text = flags[name].value
  try:
    value = json.loads(text)
  except ValueError as e:
    raise errors.UserError(f"--{name}={text!r} is not JSON: {e}") from e
  if not isinstance(value, dict):
    raise errors.UserError(f"--{name}={text!r}, expected a JSON object.")
  return value
