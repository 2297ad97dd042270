"""Checkpoints of several processes that each have a folder of their own.

Each process writes its pieces of the arrays into its folder, as on hosts that
share no disk; `mirror` brings them together behind a URL. So each piece is a
file, named by its place in its array. What Orbax writes by default, one store
for all arrays, has to be merged by one process that reads all of it.

Orbax reads a missing piece as zeros: only what was compared with a whole
manifest may be read.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from mmjax.train import barrier, manifest

# Each process makes, renames and lists the folders, not the first for all.
_EACH = ocp.options.MultiprocessingOptions(primary_host=None)
# What Orbax warns of at each save, and is as it should be.
_EXPECTED = ("Global object size logging disabled", "Skipping merge of OCDBT")


def open_manager(directory: Path, *, async_: bool) -> ocp.CheckpointManager:
  """Orbax's manager of the steps in the folder of this process."""
  directory.mkdir(parents=True, exist_ok=True)
  logging.getLogger("absl").addFilter(_is_news)
  return ocp.CheckpointManager(
    directory,
    options=ocp.CheckpointManagerOptions(
      create=False,
      cleanup_tmp_directories=True,
      enable_async_checkpointing=async_,
      multiprocessing_options=_EACH,
      # Else each may begin to write when the first has made its own folder.
      async_options=ocp.options.AsyncOptions(
        create_directories_asynchronously=False,
        barrier_sync_fn=barrier.wait,
      ),
    ),
    item_handlers={
      "state": ocp.PyTreeCheckpointHandler(
        use_ocdbt=False, multiprocessing_options=_EACH
      ),
      "meta": ocp.JsonCheckpointHandler(multiprocessing_options=_EACH),
    },
  )


def items(state: Any, meta: dict[str, Any]) -> ocp.args.Composite:
  """What to save: the arrays and the JSON; is read as `stored.items` is."""
  return ocp.args.Composite(
    state=ocp.args.PyTreeSave(state), meta=ocp.args.JsonSave(meta)
  )


def agreed(
  directory: Path, candidates: Sequence[int]
) -> tuple[list[int], dict[int, str]]:
  """The first step that is good in the folders of all processes.

  Each process compares its own copy. Each has to call it; which steps are
  tried is what the first process has.

  Returns:
    The step, or none; and what is wrong with those before it.
  """
  count = multihost_utils.broadcast_one_to_all(np.int32(len(candidates)))
  # Another process may have fewer or more.
  padded = np.resize(np.asarray([*candidates, -1], np.int32), int(count))
  steps = np.asarray(multihost_utils.broadcast_one_to_all(padded))
  bad: dict[int, str] = {}
  for step in map(int, steps):
    problem = _problem(directory / str(step))
    wrong = multihost_utils.process_allgather(np.int32(bool(problem)))
    if not np.any(wrong):
      return [step], bad
    bad[step] = problem or "damaged in the copy of another process"
  return [], bad


def _is_news(record: logging.LogRecord) -> bool:
  return not any(text in str(record.msg) for text in _EXPECTED)


def _problem(folder: Path) -> str:
  if not manifest.exists(folder):
    return "not in the copy of this process"
  return next(iter(manifest.verify(folder)), "")
