"""Makes candidates, each in its own process: our step, peers, a product."""

import functools
import importlib
import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections as mlc

import mmjax
from mmjax.bench import rounds
from mmjax.bench.candidate import Factory, StepCandidate, Work
from mmjax.core import errors

OWN, INPUT, PEAK, LEAN = "mmjax", "mmjax, its own data", "large product", "lean"
# Of all candidates alike. Huge pages: XLA on CPUs frees its buffers after each
# step, and getting small pages again takes 5 to 20 % of it. No cache, so that
# compiling is timed; no reserved memory, for several processes on one GPU.
ENVIRONMENT = {
  "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
  "JAX_ENABLE_COMPILATION_CACHE": "false",
  "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
  "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9",
}
LEAN_FILE = "experiments/performance/lean.py"


class Steps:
  """A step candidate as `rounds` takes it: steps a second."""

  def __init__(self, make: Callable[[], StepCandidate]):
    self._candidate = make()
    self.facts = self._candidate.facts
    self._step_secs = self._timed(1)

  def sample(self, secs: float) -> float:
    """Steps a second, over at least one."""
    count = max(1, round(secs / self._step_secs))
    self._step_secs = self._timed(count) / count
    return 1 / self._step_secs

  def close(self) -> None:
    """Ends what the candidate started, if it says how."""
    close = getattr(self._candidate, "close", None)
    if close is not None:
      close()

  def _timed(self, count: int) -> float:
    start = time.perf_counter()
    self._candidate.run(count)
    return time.perf_counter() - start


def name_of(candidate: str, precision: str) -> str:
  """What a candidate is called in tables."""
  return f"{candidate} {precision}"


def own(
  config: mlc.ConfigDict, precision: str, *, real_input: bool = False
) -> rounds.Make:
  """The config's own step."""
  made = functools.partial(
    _own, config.to_dict(), precision, real_input=real_input
  )
  return functools.partial(Steps, made)


def _own(config: Mapping[str, Any], precision: str, **options: Any) -> Any:
  from mmjax.bench import own_step  # Where it runs: it starts a device.

  return own_step.OwnStep(config, precision, **options)


def compiled(config: mlc.ConfigDict, precision: str) -> rounds.Make:
  """The config's step, compiled and never run: its facts alone."""
  return functools.partial(_compiled, config.to_dict(), precision)


def _compiled(config: Mapping[str, Any], precision: str) -> Any:
  from mmjax.bench import own_step

  return Facts(own_step.compile_step(config, precision)[2])


def device() -> Any:
  """What jax sees in a candidate's process."""
  import jax

  first = jax.devices()[0]
  return Facts({"platform": first.platform, "device": first.device_kind})


class Facts:
  """A candidate that there is nothing to time of."""

  def __init__(self, facts: dict[str, Any]):
    self.facts = facts

  def sample(self, secs: float) -> float:
    return 0.0

  def close(self) -> None:
    pass


def product(precision: str) -> rounds.Make:
  """The large matrix product."""
  return functools.partial(Steps, functools.partial(_product, precision))


def _product(precision: str) -> Any:
  from mmjax.bench import peak

  return peak.Product(precision)


def peer(name: str, task: Work, precision: str) -> rounds.Make:
  """A peer's step: `NAME` or `NAME:OPTION`, see `peers.PEERS`.

  Raises:
    UserError: unknown.
  """
  check_peer(name)
  made = functools.partial(_peer, name, task, precision)
  return functools.partial(Steps, made)


def _peer(name: str, task: Work, precision: str) -> StepCandidate:
  return factory(name)(task, precision)


def check_peer(name: str) -> None:
  """Raises a `UserError` for a name that is no peer's."""
  from mmjax.bench import peers

  known = [*peers.PEERS, LEAN]
  kind, _, option = name.partition(":")
  if kind not in known:
    raise errors.unknown("peer", name, known)
  if kind == LEAN and option:
    raise errors.UserError(f"The peer {LEAN!r} has no variants, got {name!r}.")


def factory(name: str) -> Factory:
  """What makes a peer's step, imported.

  Raises:
    UserError: unknown.
  """
  from mmjax.bench import peers

  check_peer(name)
  if name == LEAN:
    return _lean()
  name, _, option = name.partition(":")
  module, _, function = peers.PEERS[name].partition(":")
  made = getattr(importlib.import_module(module), function)
  return functools.partial(made, option=option)


def _lean() -> Factory:
  """The plain step, which is no part of the package."""
  file = Path(mmjax.__file__).resolve().parents[1] / LEAN_FILE
  if not file.is_file():
    raise errors.UserError(
      f"The peer {LEAN!r} is {LEAN_FILE} of mmjax's repository, which is not "
      "in what was installed: run from a checkout."
    )
  spec = importlib.util.spec_from_file_location("mmjax_bench_lean", file)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.make
