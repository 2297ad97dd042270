"""Where the numbers of a run go: JSON lines always, TensorBoard if wanted."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

JSONL_FILE = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
NOT_SCALARS = ("kind", "step", "time")

log = logging.getLogger(__name__)


@runtime_checkable
class MetricWriter(Protocol):
  """Takes rows: flat dicts with `kind`, `step`, `time` and numbers."""

  def write(self, row: Mapping[str, Any]) -> None: ...

  def flush(self) -> None: ...

  def close(self) -> None: ...


class JsonlWriter:
  """Appends one JSON object per line; each line is on its way when written.

  JSON has no word for numbers that are not finite: they are written as the
  strings "nan", "inf" and "-inf", which Python's `float` reads.

  On opening, a last line that a killed run left half-written is dropped, and
  with `resume_step` the rows of later steps, which will be written again.
  """

  def __init__(self, path: Path, resume_step: int | None = None):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
      _rewrite(path, resume_step)
    self._file = path.open("a", encoding="utf-8")

  def write(self, row: Mapping[str, Any]) -> None:
    self._file.write(json.dumps(plain(row), allow_nan=False) + "\n")
    self._file.flush()

  def flush(self) -> None:
    """Forces all lines to the disk."""
    self._file.flush()
    os.fsync(self._file.fileno())

  def close(self) -> None:
    if not self._file.closed:
      self.flush()
      self._file.close()


class TensorBoardWriter:
  """Writes the numbers of "train" and "eval" rows as scalars.

  TensorBoard hides what an earlier run wrote after `resume_step`.
  """

  def __init__(self, folder: Path, resume_step: int | None = None):
    import tensorboardX  # Not needed by who writes JSON lines only.

    purge_step = None if resume_step is None else resume_step + 1
    self._writer = tensorboardX.SummaryWriter(
      str(folder), purge_step=purge_step
    )

  def write(self, row: Mapping[str, Any]) -> None:
    if row.get("kind") == "start":
      return
    for name, value in row.items():
      value = _scalar(value)
      is_number = isinstance(value, (int, float))
      if is_number and name not in NOT_SCALARS:
        self._writer.add_scalar(
          name, float(value), int(row["step"]), walltime=row.get("time")
        )

  def flush(self) -> None:
    self._writer.flush()

  def close(self) -> None:
    self._writer.close()


class MultiWriter:
  """Hands each row to all of its writers."""

  def __init__(self, writers: Sequence[MetricWriter]):
    self._writers = tuple(writers)

  def write(self, row: Mapping[str, Any]) -> None:
    for writer in self._writers:
      writer.write(row)

  def flush(self) -> None:
    for writer in self._writers:
      writer.flush()

  def close(self) -> None:
    for writer in self._writers:
      writer.close()


def open_writers(
  workdir: Path, *, resume_step: int | None = None, tensorboard: bool = True
) -> MultiWriter:
  """The writers of a run that starts, or goes on after `resume_step`."""
  writers: list[MetricWriter] = [JsonlWriter(workdir / JSONL_FILE, resume_step)]
  if tensorboard:
    writers.append(TensorBoardWriter(workdir / TENSORBOARD_FOLDER, resume_step))
  return MultiWriter(writers)


def plain(value: Any) -> Any:
  """Turns numpy and jax scalars into what JSON has; see `JsonlWriter`."""
  if isinstance(value, Mapping):
    return {str(k): plain(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [plain(v) for v in value]
  value = _scalar(value)
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  return value


def _scalar(value):
  is_array = hasattr(value, "shape") and hasattr(value, "dtype")
  if is_array and value.shape == ():
    value = np.asarray(value)
    # bfloat16 and its like are no number to Python.
    return (value if value.dtype.isbuiltin else value.astype(float)).item()
  return value


def _rewrite(path, resume_step):
  lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
  kept = [line for line in lines if line and _stays(line, resume_step)]
  partial = path.with_name(path.name + ".tmp")
  with partial.open("w", encoding="utf-8") as f:
    f.writelines(f"{line}\n" for line in kept)
    f.flush()
    os.fsync(f.fileno())
  os.replace(partial, path)


def _stays(line, resume_step):
  try:
    row = json.loads(line)
  except ValueError:
    row = None
  if not isinstance(row, dict):
    log.warning("Dropped a line that is no JSON object: %.80r", line)
    return False
  return resume_step is None or row.get("step", 0) <= resume_step
