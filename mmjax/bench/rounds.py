"""Runs candidates in turn, each in a process of its own.

All start and warm up first. Then in each round every candidate, in another
order each time, works for a while as the others wait: what else the machine
does falls on all alike. So compare within a round: `ratio`.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import random
import statistics
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mmjax.bench.candidate import NotInstalled
from mmjax.core import errors

ANSWER_SECS = 900.0  # Making a model, compiling and warming it up.


@runtime_checkable
class Sampler(Protocol):
  """What a candidate's process makes, warmed up."""

  facts: dict[str, Any]

  def sample(self, secs: float) -> float:
    """Works for about this long; how much it did a second."""
    ...

  def close(self) -> None:
    """Ends what it started."""
    ...


# Called in the candidate's process, so it has to be picklable.
Make = Callable[[], Sampler]


@dataclasses.dataclass(frozen=True)
class Result:
  """Of one candidate."""

  name: str
  rates: tuple[float, ...] = ()  # A second, of each round.
  missing: str = ""  # Why there are none.
  facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  # It is missing for a reason that the user can change.
  refused: bool = False

  @property
  def median(self) -> float:
    return statistics.median(self.rates) if self.rates else 0.0


@dataclasses.dataclass(frozen=True)
class Ratio:
  """How many times as fast one candidate is as another."""

  median: float
  least: float
  most: float

  def __str__(self) -> str:
    return f"{self.median:.2f} ({self.least:.2f}-{self.most:.2f})"


def ratio(a: Result, b: Result) -> Ratio | None:
  """`a` over `b`, the median over rounds; None if one is missing."""
  if not a.rates or not b.rates:
    return None
  each = [x / y for x, y in zip(a.rates, b.rates, strict=True)]
  return Ratio(statistics.median(each), min(each), max(each))


def run(
  makers: Mapping[str, Make],
  *,
  rounds: int,
  secs: float,
  say: Callable[[str], None] = lambda text: None,
  environment: Mapping[str, str] | None = None,
) -> list[Result]:
  """Measures candidates.

  Args:
    makers: by the candidate's name.
    rounds: samples of each.
    secs: time of a sample.
    say: told what goes on.
    environment: of their processes, besides this one's.
  """
  context = multiprocessing.get_context("spawn")
  pipes: dict[str, Any] = {}
  processes = []
  results: dict[str, Result] = {}
  rates: dict[str, list[float]] = {}
  try:
    for name, make in makers.items():
      pipes[name], theirs = context.Pipe()
      process = context.Process(target=_serve, args=(make, theirs))
      with _environment(environment or {}):
        process.start()
      theirs.close()
      processes.append(process)
      # One after another: they warm up.
      results[name] = result = Result(name, **_receive(pipes[name], name))
      if not result.missing:
        rates[name] = []
      say(f"{name}: {_last_line(result.missing) or 'ready'}")
    rng = random.Random(0)
    for number in range(rounds):
      for name in rng.sample(sorted(rates), len(rates)):
        pipes[name].send(secs)
        rates[name].append(_receive(pipes[name], name)["rate"])
      say(f"round {number + 1} of {rounds}")
  finally:
    for pipe in pipes.values():
      pipe.close()
    for process in processes:
      process.join(10)
      if process.is_alive():
        process.kill()
  return [
    dataclasses.replace(result, rates=tuple(rates.get(name, ())))
    for name, result in results.items()
  ]


def _last_line(text: str) -> str:
  return text.strip().splitlines()[-1] if text.strip() else ""


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
  """What starts meanwhile has these variables; the user's own stay."""
  added = [name for name in changes if name not in os.environ]
  os.environ.update({name: changes[name] for name in added})
  try:
    yield
  finally:
    for name in added:
      del os.environ[name]


def _receive(pipe, name: str) -> dict[str, Any]:
  """What the process says; that it died is an answer too."""
  if not pipe.poll(ANSWER_SECS):
    raise TimeoutError(f"{name}: no answer within {ANSWER_SECS:g} s")
  try:
    answer = pipe.recv()
  except (EOFError, ConnectionResetError):
    answer = dict(
      missing="its process died, most likely since memory was full; "
      "take a smaller batch or fewer candidates at once"
    )
  if "rate" not in answer and "facts" not in answer and "missing" not in answer:
    raise RuntimeError(f"{name}: {answer['failed']}")
  return answer


def _serve(make: Make, pipe) -> None:
  before = peak_memory()
  try:
    sampler = make()
  except (NotInstalled, errors.UserError) as e:
    pipe.send(dict(missing=str(e), refused=True))
    return
  except Exception:
    pipe.send(dict(missing=f"failed:\n{traceback.format_exc().strip()}"))
    return
  grown = max(peak_memory() - before, 0)
  pipe.send(dict(facts={"rss_growth_bytes": grown, **sampler.facts}))
  while True:
    try:
      secs = pipe.recv()
    except EOFError:
      break
    try:
      pipe.send(dict(rate=sampler.sample(secs)))
    except Exception:
      pipe.send(dict(failed=traceback.format_exc().strip()))
      break
  sampler.close()


def peak_memory() -> int:
  """Most bytes of memory that this process ever had; Linux only."""
  status = Path("/proc/self/status")
  if status.exists():
    for line in status.read_text().splitlines():
      if line.startswith("VmHWM:"):
        return int(line.split()[1]) * 1024
  return 0
