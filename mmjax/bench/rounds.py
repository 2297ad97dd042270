"""Runs candidates in turn, each in a process of its own.

All start and warm up first. Then in each round every candidate, in another
order each time, makes batches for a while as the others wait: what else the
machine does falls on all alike.
"""

import dataclasses
import multiprocessing
import random
import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmjax.bench import candidates

START_SECS = 300.0
DISCARDED = 8  # Batches at the start of a sample, which may be made before.


@dataclasses.dataclass(frozen=True)
class Result:
  """Of one candidate."""

  name: str
  rates: tuple[float, ...] = ()  # Examples a second, of each round.
  missing: str = ""  # Why there are none.

  @property
  def median(self) -> float:
    return statistics.median(self.rates) if self.rates else 0.0


def run(
  names: Sequence[str],
  folder: Path,
  *,
  rounds: int,
  secs: float,
  say: Callable[[str], None] = lambda text: None,
) -> list[Result]:
  """Measures candidates by name; `secs` is the time of a sample."""
  context = multiprocessing.get_context("spawn")
  pipes: dict[str, Any] = {}
  processes, missing = [], {}
  try:
    for name in names:
      pipes[name], theirs = context.Pipe()
      process = context.Process(target=_serve, args=(name, folder, theirs))
      process.start()
      theirs.close()
      processes.append(process)
      if why := _receive(pipes[name]):  # One after another: they warm up.
        missing[name] = why
      say(f"{name}: {why or 'ready'}")
    rates: dict[str, list[float]] = {n: [] for n in names if n not in missing}
    rng = random.Random(0)
    for number in range(rounds):
      for name in rng.sample(sorted(rates), len(rates)):
        pipes[name].send(secs)
        rates[name].append(_receive(pipes[name]))
      say(f"round {number + 1} of {rounds}")
  finally:
    for pipe in pipes.values():
      pipe.close()
    for process in processes:
      process.join(10)
      if process.is_alive():
        process.kill()
  return [Result(n, tuple(rates.get(n, ())), missing.get(n, "")) for n in names]


def _receive(pipe) -> Any:
  if not pipe.poll(START_SECS):
    raise TimeoutError(f"no answer within {START_SECS:g} s")
  return pipe.recv()


def _serve(name: str, folder: Path, pipe) -> None:
  try:
    batches = iter(candidates.CANDIDATES[name](folder))
    for _ in range(DISCARDED):
      next(batches)
  except candidates.NotInstalled as e:
    pipe.send(str(e))
    return
  except Exception:
    pipe.send(f"failed:\n{traceback.format_exc().strip()}")
    return
  pipe.send("")
  while True:
    try:
      secs = pipe.recv()
    except EOFError:
      break
    pipe.send(_rate(batches, secs))
  close = getattr(batches, "close", None)
  if close is not None:
    close()


def _rate(batches, secs: float) -> float:
  for _ in range(DISCARDED):
    next(batches)
  start, count = time.perf_counter(), 0
  while (spent := time.perf_counter() - start) < secs:
    next(batches)
    count += candidates.BATCH
  return count / spent
