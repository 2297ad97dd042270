"""Figures of the input pipeline that have no peer: disk, start, memory, draws.

Each that looks at memory runs in a process of its own.
"""

import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from mmjax.bench import candidates
from mmjax.core.batch import FieldSpec
from mmjax.data import loader, mixture, open_source, pipeline
from mmjax.data.examples import Pipeline

MIB = 2**20
CHUNK = 4 * MIB  # Bytes that are read at once.
RECORDS = 10_000_000
RATES = {"a": 5.0, "b": 4.0, "c": 3.0, "d": 2.0, "e": 1.0}
DRAWS = 100_000

Figures = dict[str, int | float]


def read_speed(folder: Path, rounds: int) -> Figures:
  """MiB a second of shards: files as they lie, their records, their examples.

  In turn; before each the files are dropped from the page cache. An example is
  a record whose checksum was compared and whose fields were taken apart.
  `share` is that of records in the speed of files.
  """
  split = folder / "prepared" / "train"
  files = sorted(split.glob("*.array_record"))
  size = sum(file.stat().st_size for file in files)
  source = open_source("prepared", split="train", path=str(split.parent))
  secs: dict[str, list[float]] = {"files": [], "records": [], "examples": []}
  for _ in range(rounds):
    for name, read in (
      ("files", lambda: _read_files(files)),
      ("records", lambda: _read_all(source.record, len(source))),
      ("examples", lambda: _read_all(source.__getitem__, len(source))),
    ):
      _drop(files)
      start = time.perf_counter()
      read()
      secs[name].append(time.perf_counter() - start)
  speeds = {n: size / MIB / float(np.median(s)) for n, s in secs.items()}
  return speeds | {"share": speeds["records"] / speeds["files"]}


def _drop(files: list[Path]) -> None:
  for file in files:
    with file.open("rb") as opened:
      os.fsync(opened.fileno())  # Only what is written can be dropped.
      os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_files(files: list[Path]) -> None:
  for file in files:
    with file.open("rb", buffering=0) as opened:
      while opened.read(CHUNK):
        pass


def _read_all(read: Callable[[int], Any], count: int) -> None:
  for i in range(count):
    read(i)


class _Numbers:
  """As many records as one wants; no memory."""

  def __len__(self) -> int:
    return RECORDS

  def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
    return {"n": index.__index__()}


class _Number:
  """Adds the number of the record."""

  def specs(self) -> dict[str, FieldSpec]:
    return {"n": FieldSpec((), "int64")}

  def __call__(self, example, rng, *, train):
    return {**example, "n": np.int64(example["n"])}


def start_up() -> Figures:
  """Until the first shuffled batch of 10 million records, and its memory."""
  return _in_process(_start_up)


def _start_up() -> Figures:
  before, start = _memory(os.getpid()), time.perf_counter()
  made = Pipeline(_Numbers(), [_Number()], name="numbers", split="train")
  batches = loader.train_batches(made, batch_size=candidates.BATCH, seed=0)
  next(batches)
  secs = time.perf_counter() - start
  return {"secs": secs, "mib": _memory(os.getpid()) - before}


def memory(folder: Path, examples: int) -> Figures:
  """MiB after a tenth of so many examples with two workers, and at the end.

  Of the main process and its workers together.
  """
  return _in_process(_flatness, folder, examples)


def _flatness(folder: Path, examples: int) -> Figures:
  made = pipeline.build_pipeline(
    dict(
      source="prepared",
      path=str(folder / "copies"),
      image=dict(size=64, crop_scale=candidates.SCALE),
      workers=candidates.PARALLEL,
      cache_mib=0,
    )
  )
  batches = loader.train_batches(made, batch_size=candidates.BATCH, seed=0)
  steps = -(-examples // candidates.BATCH)
  found = []
  for step in range(steps):
    next(batches)
    if step >= steps // 10 and step % max(1, steps // 50) == 0:
      found.append(_family_memory())
  least, most, last = min(found), max(found), found[-1]
  return {
    "examples": steps * candidates.BATCH,
    "mib": last,
    "spread": (most - least) / (most + least),  # Half the range, of the middle.
    "growth": last / found[0] - 1,
  }


def _family_memory() -> float:
  children = multiprocessing.active_children()
  return sum(_memory(pid) for pid in [os.getpid(), *(c.pid for c in children)])


def _memory(pid: int | None) -> float:
  """MiB that a process has to itself or its share of; Linux only."""
  for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
    if line.startswith("Pss:"):
      return int(line.split()[1]) / 1024
  return 0.0


def draws() -> Figures:
  """How far five tasks' shares are from 5:4:3:2:1 after 100,000 draws."""
  counts = mixture.Sample(RATES).counts(DRAWS)
  total = sum(RATES.values())
  errors = [abs(counts[t] / DRAWS - rate / total) for t, rate in RATES.items()]
  return {"draws": DRAWS, "largest_error": max(errors)}


def _in_process(fn: Callable[..., Figures], *args) -> Figures:
  context = multiprocessing.get_context("spawn")
  ours, theirs = context.Pipe()
  process = context.Process(target=_answer, args=(theirs, fn, *args))
  process.start()
  theirs.close()
  try:
    return ours.recv()
  finally:
    process.join(10)


def _answer(pipe, fn, *args) -> None:
  pipe.send(fn(*args))
