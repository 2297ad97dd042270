"""Compares what must be the same in all processes, before the first step."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from mmjax.core import config as config_lib
from mmjax.core import errors

MOST_LINES = 10  # Of differences in one message.


class Disagreement(errors.UserError):
  """The processes are not the same; all of them raise it together."""


def gather(text: str) -> list[str]:
  """The texts of all processes, in their order. Each has to call it."""
  own = np.frombuffer(text.encode(), np.uint8)
  if jax.process_count() == 1:
    return [text]
  sizes = np.asarray(
    multihost_utils.process_allgather(np.asarray(own.size, np.int32))
  )
  padded = np.zeros(int(sizes.max()), np.uint8)
  padded[: own.size] = own
  rows = np.asarray(multihost_utils.process_allgather(padded))
  return [
    bytes(row[:size]).decode() for row, size in zip(rows, sizes, strict=True)
  ]


def check(facts: Mapping[str, Any], names: Sequence[str]) -> None:
  """Checks that all processes give the same facts. Each has to call it.

  Args:
    facts: plain values by what they are, e.g. "config".
    names: of the processes, for the message.

  Raises:
    Disagreement: they don't; says which process differs in what.
  """
  rows = [json.loads(row) for row in gather(json.dumps(facts, default=str))]
  if text := compare(rows, names):
    raise Disagreement(text)


def compare(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
  """Lists what differs from the first row; "" if nothing."""
  first = rows[0]
  lines = []
  for name, row in zip(names[1:], rows[1:], strict=True):
    for key, (a, b) in config_lib.diff(first, row).items():
      lines.append(f"  {key}: {a!r} in {names[0]}, {b!r} in {name}")
  if not lines:
    return ""
  rest = f"\n  and {len(lines) - MOST_LINES} more" * (len(lines) > MOST_LINES)
  return (
    "The processes of this job are not the same:\n"
    + "\n".join(lines[:MOST_LINES])
    + rest
    + "\nStart all with the same command, on the same code and packages."
  )


def code_fingerprint(*folders: str | Path) -> str:
  """A hash of the package, and of what was imported from the folders."""
  package = Path(__file__).parents[1]
  files = {
    path.relative_to(package).as_posix(): path for path in package.rglob("*.py")
  }
  for folder in filter(None, folders):
    base = Path(folder).resolve()
    for module in list(sys.modules.values()):
      path = Path(getattr(module, "__file__", None) or "/").resolve()
      if path.is_relative_to(base) and path.suffix == ".py":
        files.setdefault(f"plug-in {path.relative_to(base).as_posix()}", path)
  digest = hashlib.sha256()
  for name, path in sorted(files.items()):
    digest.update(name.encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()[:16]


def shapes(
  batches: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, dict[str, str]]:
  """Shape and type of each field of each task's batch, as texts."""
  return {
    task: {
      field: f"{np.asarray(x).dtype}{list(np.shape(x))}"
      for field, x in batch.items()
    }
    for task, batch in batches.items()
  }
