"""From numbers on the device to the row of a log, without waiting each step."""

import contextlib
import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jax.typing import DTypeLike

from mmjax.core.interfaces import LossTerm

PEAK_SECS = 0.5  # How long to measure the peak, beside compiling.


class Meter:
  """Sums metrics and time between two rows of the log.

  `add` only starts work on the device; `row` waits for it. So a row stands
  for finished steps and its times are true.

  The first step compiles, so its time is left out: its row has no speed. So
  does the first of each task of a mixture, told by the names of its metrics.
  """

  def __init__(
    self,
    *,
    examples_per_step: int,
    peak_flops: float | None = None,
    num_steps: int = 0,
    clock: Callable[[], float] = time.perf_counter,
  ):
    """Makes a meter for one run of the loop.

    Args:
      examples_per_step: on all devices.
      peak_flops: FLOP/s of all devices together; None = no `mfu`.
      num_steps: of the whole run; 0 = no `eta_secs`.
      clock: seconds.
    """
    self._examples = examples_per_step
    self._peak = peak_flops
    self._num_steps = num_steps
    self._clock = clock
    self._step = 0
    # By the names that come together: each task of a mixture has its own, so
    # that adding is compiled once for it.
    self._sums: dict[tuple[str, ...], dict[str, Any]] = {}
    self._timed_steps = 0
    self._done_tokens = 0
    self._done_flops = 0.0
    self._done_examples = 0
    # Names and shapes of steps taken.
    self._compiled: set[tuple[frozenset[str], Hashable]] = set()
    self._start = self._last = 0.0  # Since when; end of the last step.
    self._pause_secs = 0.0

  def add(
    self,
    step: int,
    metrics: Mapping[str, LossTerm],
    *,
    tokens: int = 0,
    flops: float = 0.0,
    examples: int = 0,
    shape: Hashable = None,
  ) -> None:
    """Takes the metrics of a step, still on the device.

    Args:
      step: counted from 1.
      metrics: of this step.
      tokens: of this step; 0 = no `tokens_per_sec`.
      flops: of the model, on all devices; 0 = no `mfu`.
      examples: of this step, if it differs; 0 = `examples_per_step`.
      shape: of its batch, whatever tells those apart that compile anew.
    """
    self._step = step
    self.note(metrics)
    names = frozenset(metrics), shape
    if names in self._compiled:
      self._timed_steps += 1
      self._done_tokens += tokens
      self._done_examples += examples or self._examples
      self._done_flops += flops
    elif self._compiled:
      self._pause_secs += self._clock() - self._last
    else:
      self._restart()
    self._compiled.add(names)
    self._last = self._clock()

  def note(self, metrics: Mapping[str, LossTerm]) -> None:
    """Takes what was measured beside a step."""
    new = {name: (term.total, term.weight) for name, term in metrics.items()}
    names = tuple(sorted(new))
    known = self._sums.get(names)
    self._sums[names] = _add(known, new) if known else new

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Leaves what is done inside (evaluation) out of the speed."""
    jax.block_until_ready(self._sums)  # The steps before it do count.
    start = self._clock()
    try:
      yield
    finally:
      self._last = self._clock()
      self._pause_secs += self._last - start

  def row(self, *, input_wait_secs: float = 0.0) -> dict[str, Any]:
    """Waits for the steps since the last row and describes them.

    Args:
      input_wait_secs: how long the loop waited for batches since then.

    Returns:
      `step`, `time`, the mean of each metric of which something counted, and
      the speed. Of a metric whose total is a vector, counts of kinds, the
      share of kinds that occurred and their perplexity, e to the entropy.
    """
    sums = _joined(jax.device_get(list(self._sums.values())))
    row: dict[str, Any] = {"step": self._step, "time": time.time()}
    for name, (total, weight) in sums.items():
      if np.ndim(total):
        row |= _evenness(name, total)
      elif float(weight) != 0.0:
        row[name] = float(total) / float(weight)
    row |= self._speed(input_wait_secs)
    self._sums = {}
    self._restart()
    return row

  def _speed(self, input_wait_secs):
    if self._timed_steps == 0:
      return {}
    secs = max(self._clock() - self._start - self._pause_secs, 1e-9)
    step_secs = secs / self._timed_steps
    speed = {
      "step_secs": step_secs,
      "examples_per_sec": self._done_examples / secs,
      "input_wait_fraction": min(input_wait_secs / secs, 1.0),
    }
    if self._done_tokens:
      speed["tokens_per_sec"] = self._done_tokens / secs
    if self._done_flops and self._peak:
      speed["mfu"] = self._done_flops / secs / self._peak
    if self._num_steps:
      speed["eta_secs"] = step_secs * max(self._num_steps - self._step, 0)
    return speed

  def _restart(self):
    self._timed_steps = 0
    self._done_tokens = 0
    self._done_examples = 0
    self._done_flops = 0.0
    self._pause_secs = 0.0
    self._start = self._last = self._clock()


def _evenness(name, counts):
  total = counts.sum()
  if not total:
    return {}
  probs = counts[counts > 0] / total
  return {
    f"{name}_usage": float((counts > 0).mean()),
    f"{name}_perplexity": math.exp(-float((probs * np.log(probs)).sum())),
  }


def _joined(groups):
  """One pair of sums for each name."""
  joined: dict[str, tuple[Any, float]] = {}
  for group in groups:
    for name, (total, weight) in group.items():
      before = joined.get(name, (0.0, 0.0))
      total = np.asarray(total, np.float64)
      joined[name] = before[0] + total, before[1] + float(weight)
  return joined


@jax.jit
def _add(a, b):
  return jax.tree.map(jnp.add, a, b)


def measure_peak_flops(dtype: DTypeLike = jnp.float32) -> float:
  """Measures the FLOP/s of a large matrix product on all devices together.

  What a model could reach here, in place of a number from a data sheet: the
  denominator of MFU. Fake CPU devices share one CPU, which counts once.
  """
  on_cpu = jax.default_backend() == "cpu"
  size, repeats = (1024, 1) if on_cpu else (8192, 8)
  alone = jax.make_mesh(
    (1,),
    ("device",),
    axis_types=(AxisType.Auto,),
    devices=jax.local_devices()[:1],
  )
  with jax.set_mesh(alone):
    secs = _fastest_product(size, repeats, dtype)
  flops = 2.0 * size**3 * repeats / secs
  return flops * (jax.process_count() if on_cpu else jax.device_count())


def _fastest_product(size, repeats, dtype):
  """Seconds of `repeats` products of square matrices, the best of many."""
  # Of unit norm, so that products neither vanish nor overflow: zeros would
  # save power and look faster.
  keys = jax.random.split(jax.random.key(0))
  a, b = (jax.random.normal(k, (size, size)).astype(dtype) for k in keys)
  b = b / math.sqrt(size)

  @jax.jit
  def product(a, b):
    return jax.lax.fori_loop(
      0,
      repeats,
      lambda _, x: jnp.matmul(x, b, preferred_element_type=jnp.float32).astype(
        x.dtype
      ),
      a,
    )

  product(a, b).block_until_ready()  # Compiles.
  best, end = math.inf, time.perf_counter() + PEAK_SECS
  while time.perf_counter() < end:
    start = time.perf_counter()
    product(a, b).block_until_ready()
    best = min(best, time.perf_counter() - start)
  return best
