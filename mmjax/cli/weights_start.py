r"""Writes what a config starts from as a run's checkpoint of step 0.

  mmjax weights start --config=CONFIG.py --out=runs/start \
      --config.init.lora=lora.safetensors

So a base with a LoRA file on top, or any other `init`, can be evaluated and
used without training; `mmjax train` goes on from it.
"""

from collections.abc import Sequence

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag(
    "config",
    "",
    "config file, FILE or FILE:arg; --config.a.b=value overrides a key",
    required=True,
  ),
  Flag("out", "", "workdir to write, a folder or URL", required=True),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  rest, overrides = arguments.split_overrides(argv)
  flags = arguments.parse(__doc__, FLAGS, rest)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  config = arguments.load_config(flags.config, overrides)

  from mmjax.build import weights
  from mmjax.train import url_folder

  with url_folder.opened(flags.out) as out:
    report = weights.start(config, out)
  print(f"{flags.out}: step 0\n{report}")
  return 0
