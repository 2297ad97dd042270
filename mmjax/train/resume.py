"""Whether a checkpoint belongs to the run that wants to go on from it."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.core import config as config_lib
from mmjax.core import trees

# Changes in these do not change what is learned from the same numbers.
FREE = (
  "log",
  "checkpoint",
  "evaluators",
  "mesh",
  "search_path",
  "data.max_bad_fraction",
  "data.workers",
)


def fingerprint(params: Any) -> str:
  """A hash of names, shapes and dtypes; their order does not matter."""
  rows = [
    f"{name} {tuple(leaf.shape)} {leaf.dtype}"
    for name, leaf in trees.flatten(params).items()
  ]
  return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()[:16]


def compare_configs(
  old: Mapping[str, Any], new: Mapping[str, Any], free: Iterable[str] = FREE
) -> str:
  """Lists what changed between two plain configs; "" if nothing.

  Args:
    old: of the checkpoint.
    new: of this run.
    free: groups or keys that may change, as "log" or "train.num_steps".
  """
  free = tuple(free)
  changed = {
    key: values
    for key, values in config_lib.diff(old, new).items()
    if not any(key == f or key.startswith(f"{f}.") for f in free)
  }
  return "\n".join(
    f"  {key}: {a!r} -> {b!r}" for key, (a, b) in changed.items()
  )
