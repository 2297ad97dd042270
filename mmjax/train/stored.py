"""Reads one step folder of a checkpoint, whose two items Orbax wrote."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from mmjax.core import errors, trees
from mmjax.train import manifest

VARIABLES = ("params", "collections", "ema")
log = logging.getLogger(__name__)


def items(state: Any, meta: dict[str, Any]) -> ocp.args.Composite:
  """What to save: the arrays and the JSON."""
  return ocp.args.Composite(
    state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
  )


def read_all(folder: Path, abstract_state: Any) -> tuple[Any, dict[str, Any]]:
  """Reads state and meta; each array onto its `ShapeDtypeStruct.sharding`."""
  with _reader(ocp.StandardCheckpointHandler()) as reader:
    out = reader.restore(
      folder,
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(abstract_state),
        meta=ocp.args.JsonRestore(),
      ),
    )
  return out["state"], out["meta"]


def read_meta(folder: Path) -> dict[str, Any]:
  """Reads the JSON alone."""
  with _reader(ocp.StandardCheckpointHandler()) as reader:
    return reader.restore(
      folder, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
    )["meta"]


def read_variables(folder: Path) -> dict[str, Any]:
  """Reads parameters, their averages and collections as numpy, of any tree."""
  # Said array by array: else Orbax places them on the devices that saved.
  item = {k: v for k, v in _tree(folder).items() if k in VARIABLES}
  to_numpy = jax.tree.map(
    lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item
  )
  item = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), item)
  with _reader(ocp.PyTreeCheckpointHandler()) as reader:
    return reader.restore(
      folder,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          item=item, restore_args=to_numpy, partial_restore=True
        )
      ),
    )["state"]


def check_tree(folder: Path, abstract_state: Any) -> None:
  """Compares names and shapes, before any array is read.

  Raises:
    UserError: with lists of what is missing, extra, of another shape.
  """
  text = trees.diff(jax.tree.map(_stored_form, abstract_state), _tree(folder))
  if text:
    raise errors.UserError(
      f"The checkpoint {str(folder)!r} has other arrays than this config "
      "makes (missing and extra are said of the checkpoint):\n"
      f"{text}\nResume with the config of its run, or load a part of it "
      "through config.init."
    )


def read_first_good(
  directory: Path,
  steps: Sequence[int],
  read: Callable[[Path], Any],
  under: str = "",
  *,
  verified: bool = False,
) -> tuple[int | None, Any, dict[int, str]]:
  """Reads the first of `steps` whose files are as they were written.

  A step without a manifest (stopped right after it was committed) counts as
  good if it can be read.

  Args:
    directory: of all steps.
    steps: in the order to try.
    read: gets the folder of a step.
    under: the part of the folder that has to be good, e.g. "meta/".
    verified: the files were compared with the manifest already.

  Returns:
    The step (None if all are damaged), what was read, and what is wrong with
    the steps before it.
  """
  problems: dict[int, str] = {}
  for step in steps:
    folder = directory / str(step)
    listed = manifest.exists(folder)
    check = listed and not verified
    damage = manifest.verify(folder, under) if check else []
    if not damage:
      try:
        item = read(folder)
      except errors.UserError:
        raise
      except Exception as e:
        if listed:  # The files are as they were saved: not their fault.
          raise
        damage = [
          f"no {manifest.FILE}, and {type(e).__name__}: {first_line(e)}"
        ]
    if not damage:
      if not listed:
        log.warning(
          "Checkpoint %d has no %s (stopped while saving?), but could be read.",
          step,
          manifest.FILE,
        )
      return step, item, problems
    rest = f"; {len(damage) - 3} more" if len(damage) > 3 else ""
    problems[step] = "; ".join(damage[:3]) + rest
  return None, None, problems


def first_line(e: Exception) -> str:
  """The first line of an error's text, for a sentence about it."""
  return (str(e).strip() or type(e).__name__).splitlines()[0][:300]


def _tree(folder):
  with _reader(ocp.StandardCheckpointHandler()) as reader:
    return reader.metadata(folder).item_metadata["state"].tree


def _reader(state_handler):
  return ocp.Checkpointer(
    ocp.CompositeCheckpointHandler(
      state=state_handler, meta=ocp.JsonCheckpointHandler()
    )
  )


def _stored_form(leaf):
  # Orbax stores the numbers of a typed key.
  if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
    return jax.eval_shape(jax.random.key_data, leaf)
  return leaf
