"""The step that `mmjax train` would run for a config, ready to be timed."""

import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections as mlc
import numpy as np
from absl import flags

from mmjax.bench.candidate import PARITY_STEPS
from mmjax.build import experiment as experiment_lib
from mmjax.build import initial, remat
from mmjax.core import config as config_lib
from mmjax.core import errors, precision
from mmjax.core import memory as memory_lib
from mmjax.data import loader, prefetch
from mmjax.plan import memory
from mmjax.train import predict

GIB = 2.0**30
BYTES = ("temp_bytes", "argument_bytes", "output_bytes")
# How a fused attention is called in a program for NVIDIA's GPUs; with a mask
# as a bias, which costs time.
FLASH, FLASH_BIAS = "__cudnn$fmha", "__cudnn$fmhaScaleBias"


def precision_of(name: str, backend: str) -> str:
  """The policy that a candidate's precision stands for."""
  if name == "float32":
    return name
  fast = precision.fastest(backend)
  return "bfloat16_products" if fast == "float32" else fast


def compile_step(
  config: Mapping[str, Any], precision_name: str
) -> tuple[experiment_lib.Experiment, Any, dict[str, Any]]:
  """The experiment, its compiled step, and what is known of that.

  Of a mixture that draws, the step of the task that comes first.

  Raises:
    UserError: as `experiment.prepare`.
  """
  made_of = mlc.ConfigDict(dict(config))
  config_lib.search(made_of.search_path)
  backend = jax.default_backend()
  made_of.model.precision = precision_of(precision_name, backend)
  # What the weights are makes no difference.
  made_of.init.from_checkpoint = made_of.init.lora = ""
  made, _ = remat.prepare(made_of)
  batches = made.abstract_batches()
  start = time.perf_counter()
  with predict.placement(made.mesh, made.rules):
    lowered = made.step_fn.lower(
      made.abstract_state, {task: batches[task] for task in _tasks(made)}
    )
    compiled = lowered.compile()
  facts: dict[str, Any] = {"compile_secs": time.perf_counter() - start}
  stats = compiled.memory_analysis()
  facts |= {
    "temp_bytes": int(stats.temp_size_in_bytes),
    "argument_bytes": int(stats.argument_size_in_bytes),
    # What does not take the place of an argument.
    "output_bytes": int(stats.output_size_in_bytes - stats.alias_size_in_bytes),
    "precision": made_of.model.precision,
    "device": jax.devices()[0].device_kind,
    "platform": backend,
    "num_devices": made.mesh.size,
  }
  if backend == "gpu":
    text = compiled.as_text()
    facts["flash_calls"] = text.count(FLASH)
    facts["flash_bias_calls"] = text.count(FLASH_BIAS)
  return made, compiled, facts


def _tasks(made: experiment_lib.Experiment) -> tuple[str, ...]:
  return tuple(made.parts.mixture.at(0))


class OwnStep:
  """A training step of a config, see `candidate.StepCandidate`.

  Raises:
    UserError: as `experiment.prepare`; or the step needs more memory than
      there is.
  """

  def __init__(
    self,
    config: Mapping[str, Any],
    precision_name: str,
    *,
    real_input: bool = False,
  ):
    """Compiles, checks the memory, makes a state, takes the first steps.

    Args:
      config: resolved, as a dict.
      precision_name: "float32" or "bfloat16".
      real_input: batches come from the config's pipeline, each its own, as in
        a run; without, one batch lies on the device.
    """
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # For Grain.
    self._made, self._compiled, self.facts = compile_step(
      config, precision_name
    )
    self._tasks = _tasks(self._made)
    self._check_memory()
    made = self._made
    self._state, _ = initial.initial_state(made.config, made)
    self._batches = None
    self._batch = made.put(self._first_batch())
    self.facts |= {
      "params": made.num_params()[0],
      "flops": made.flops_of_steps[self._tasks],
      "losses": [self._loss() for _ in range(PARITY_STEPS)],
    }
    if real_input:
      self._batches = prefetch.Prefetcher(self._read(), made.put)

  def run(self, num_steps: int) -> None:
    for _ in range(num_steps):
      metrics = self._step()
    jax.block_until_ready((self._state, metrics))

  def close(self) -> None:
    """Ends the threads of the input, if there are any."""
    if self._batches is not None:
      self._batches.close()

  def _step(self) -> Any:
    batch = self._batch if self._batches is None else next(self._batches)
    self._state, metrics = self._compiled(self._state, batch)
    return metrics

  def _loss(self) -> float:
    return float(self._step()["loss"].mean)

  def _check_memory(self) -> None:
    device = self._made.mesh.devices.flat[0]
    on_cpu = device.platform == "cpu"
    # Fake devices share the memory of one machine.
    share = self._made.mesh.size if on_cpu else 1
    fits(
      self._made.batch_size,
      fixed=share * memory.shard_bytes(self._made.abstract_state),
      total=float(share * sum(self.facts[name] for name in BYTES)),
      free=memory_lib.free_bytes(device),
    )

  def _first_batch(self) -> dict[str, dict[str, np.ndarray]]:
    made, batches = self._made, {}
    for task in self._tasks:
      pipeline = made.parts.pipelines[task]
      rows = [
        pipeline.example(i % len(pipeline), 0, 0, train=True)
        for i in range(made.batch_size)
      ]
      batches[task] = {
        name: np.stack([row[name] for row in rows]) for name in pipeline.specs
      }
    return batches

  def _read(self) -> Iterator[dict[str, Any]]:
    made = self._made
    iterators = {
      task: loader.train_batches(
        made.parts.pipelines[task], batch_size=made.batch_size, seed=0
      )
      for task in self._tasks
    }
    while True:
      yield {task: next(batches) for task, batches in iterators.items()}


def fits(batch_size: int, *, fixed: float, total: float, free: float) -> None:
  """Checks the compiled step's memory before it runs.

  Args:
    batch_size: examples a step.
    fixed: bytes that any batch needs: the state.
    total: bytes of this one.
    free: bytes that there are; 0 = not known.

  Raises:
    UserError: it does not fit; says what would, scaled linearly.
  """
  if not free or total <= free:
    return
  each = (total - fixed) / batch_size
  largest = int(max(free - fixed, 0) / each)
  advice = f"the largest batch that fits is about {largest}"
  if not largest:
    advice = "not even one example fits: take a smaller model"
  raise errors.UserError(
    f"A step of train.batch_size={batch_size} needs {total / GIB:.1f} GiB, of "
    f"which the state is {fixed / GIB:.1f}; {free / GIB:.1f} GiB are free. By "
    f"linear scaling {advice}; config.train.accumulate and stack.remat need "
    "less."
  )
