"""Which step of a run a file belongs to, by its name below the workdir."""

from collections.abc import Iterable

from mmjax.core import errors
from mmjax.train import manifest

CHECKPOINTS = "checkpoints"
PARTS = "parts"  # Folder in a step that is not whole yet.
ALL, NONE = "all", "none"  # Beside "latest", "best" and numbers: which steps.


def wanted(whole: Iterable[str], step: int | str, url: str) -> list[str]:
  """Names of the steps that are asked for, the newest first.

  Raises:
    UserError: there is no such step.
  """
  newest_first = sorted(whole, key=int, reverse=True)
  if step in (ALL, "best", "latest"):
    return newest_first
  if step == NONE or not newest_first:
    return []
  if str(step) not in newest_first:
    raise errors.UserError(
      f"No step {step!r} in {url!r}. Known: {newest_first[::-1]}, 'latest', "
      "'best'."
    )
  return [str(step)]


def step_of(name: str) -> str | None:
  """The folder below a checkpoint folder that a file is in, if any."""
  parts = name.split("/")
  if CHECKPOINTS not in parts[:-1]:
    return None
  return parts[parts.index(CHECKPOINTS) + 1]


def whole(name: str) -> str | None:
  """The step, if a file is its manifest."""
  step = step_of(name)
  return step if step and name == manifest_of(step) else None


def manifest_of(step: str) -> str:
  """Name of the manifest of a step."""
  return f"{CHECKPOINTS}/{step}/{manifest.FILE}"


def is_piece(file: str) -> bool:
  """Whether a file of a step is a piece of an array, as `state/bias/0`.

  Those above are the same in the folder of each process.
  """
  return file.count("/") > 1
