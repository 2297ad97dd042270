"""Saves what a LoRA run learned, without its base, as a safetensors file.

  mmjax weights lora --workdir=runs/lora --out=lora.safetensors

`init.lora` of a config puts it on top of the base again, see `weights start`.
"""

from collections.abc import Sequence
from pathlib import Path

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag

FLAGS = (
  Flag("workdir", "", "folder or URL of a training run", required=True),
  Flag("out", "", "file to write, F.safetensors", required=True),
  Flag("step", "latest", "checkpoint: latest, best or a step"),
)


def main(argv: Sequence[str]) -> int:
  """Runs the verb."""
  flags = arguments.parse(__doc__, FLAGS, argv)
  from mmjax.cli import backend

  backend.set_up()
  arguments.ready_for_grain()
  from mmjax.build import weights
  from mmjax.train import url_folder

  workdir, out = url_folder.fetched(flags.workdir, flags.step), Path(flags.out)
  config = arguments.load_saved(workdir, [])
  contents = weights.save_lora(config, workdir, flags.step, out)
  numbers = sum(array.size for array in contents.arrays.values())
  print(
    f"{out}: {len(contents.arrays)} arrays, {numbers:,} numbers, "
    f"{out.stat().st_size / 2**20:.2f} MiB; base {contents.base}"
  )
  return 0
