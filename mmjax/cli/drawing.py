"""`mmjax generate --out=F.png`: draws pictures of a prompt."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmjax.cli import arguments
from mmjax.core import errors

ENDING = ".png"


def run(flags: Any, overrides: Sequence[str]) -> int:
  """Draws `--num` pictures of `--prompt` into the file `--out`.

  Raises:
    UserError: flags that do not fit, or a model that cannot draw.
  """
  check_flags(flags)
  from mmjax.build import checkpoints, picture_generation
  from mmjax.train import url_folder

  workdir = url_folder.fetched(flags.workdir, flags.step)
  config = arguments.load_saved(workdir, overrides)
  made, _, state = checkpoints.restore(config, workdir, flags.step)
  generator = picture_generation.PictureGenerator(
    made, num_steps=flags.steps, temperature=flags.temperature
  )
  pictures = generator(
    state.ema_variables, [flags.prompt] * flags.num, seed=flags.seed
  )
  out = Path(flags.out)
  picture_generation.write_grid(pictures, out)
  print(f"{out}: {len(pictures)} of {flags.prompt!r}")
  return 0


def check_flags(flags: Any) -> None:
  """Checks what is known before the checkpoint is read.

  Raises:
    UserError: another ending, inputs that nothing looks at, or no picture.
  """
  if not flags.out.lower().endswith(ENDING):
    raise errors.UserError(
      f"--out={flags.out}: pictures are written as {ENDING}; texts go to the "
      "terminal."
    )
  for name in ("image", "audio", "video", "answers", "chat"):
    if flags[name].value:
      raise errors.UserError(
        f"--{name} and --out: a picture is drawn of --prompt alone."
      )
  if not flags.prompt.strip():
    raise errors.UserError("--prompt is missing: say what to draw.")
  if flags.num < 1:
    raise errors.UserError(f"--num={flags.num}, expected 1 or more.")
