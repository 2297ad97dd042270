r"""Shows where the time of a training step goes, by kind of work.

  mmjax profile --config=configs/starter/pretrain.py --workdir=runs/profile

Runs some steps of the config, from fresh parameters, with its data; prints
time and FLOPs of attention, feed-forwards, norms, ..., and writes a trace that
https://ui.perfetto.dev opens. See docs/profiling.md.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import errors, folders

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("workdir", "runs/profile", "folder for the trace"),
  Flag("steps", 5, "that are traced; as many run before, not traced"),
  Flag("task", "", "of a mixture that draws one a step, which [the first]"),
  Flag("json", "", "file to write all numbers to"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  if flags.steps < 1:
    raise errors.UserError(f"--steps={flags.steps}, expected 1 or more.")
  workdir = folders.local(flags.workdir)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  config = arguments.load_config(flags.config, overrides)
  from mmjax.bench import profiling

  found = profiling.run(config, workdir, num_steps=flags.steps, task=flags.task)
  print(profiling.describe(found))
  if flags.json:
    path = Path(flags.json)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(profiling.as_json(found), indent=2) + "\n")
  return 0
