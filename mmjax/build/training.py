"""A training run from start, or from where it was left, to its end."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import (
  evaluation,
  initial,
  processes,
  remat,
  tokenizer_ids,
  workdirs,
)
from mmjax.build import settings as settings_lib
from mmjax.core import errors, precision
from mmjax.data import input_time, loader, prefetch
from mmjax.distributed import job as job_lib
from mmjax.train import checkpoint, loop, metrics, optimizer, signals, writers
from mmjax.train.state import TrainState


class Unhealthy(errors.UserError):
  """An objective says that going on makes no sense."""


class Listener:
  """What the command line shows of a run; this one shows nothing."""

  def on_start(self, run: "Run", first_step: int) -> None:
    """Everything is built and placed; the first step comes next."""

  def on_step(self, step: int) -> None:
    """A step was handed to the device."""

  def on_log(self, row: Mapping[str, Any]) -> None:
    """A row was written to the log."""

  def on_message(self, text: str) -> None:
    """Something the user should read."""


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How a run ended."""

  step: int
  finished: bool  # False: it was asked to stop and can be resumed.
  results: Mapping[str, float]  # Of the evaluation at the end.


class Run:
  """One training run in one workdir."""

  def __init__(
    self,
    config: mlc.ConfigDict,
    workdir: Path,
    listener: Listener | None = None,
    job: job_lib.Job | None = None,
    shared: bool = True,
  ):
    """Checks what can be checked before anything is made.

    Args:
      config: of the run.
      workdir: where it is written.
      listener: hears of it.
      job: the other processes, if there are any; see `distributed`.
      shared: they all see the workdir; else each has its own.
    """
    self.config = config
    self.job = job
    self.writes = job is None or job.first
    self._seen_by_all = workdir if shared else None
    if job is not None:
      processes.check_start(job, config, self._seen_by_all)
    self.workdir = workdir
    self.listener = listener or Listener()
    self.train = settings_lib.settings(config, "train")
    self.log = settings_lib.settings(config, "log")
    self.saving = settings_lib.settings(config, "checkpoint")
    self.experiment, self._remat = remat.prepare(config, self._agree)
    if not any(self.experiment.trainable.values()):
      raise errors.UserError(
        "config.finetune.trainable is empty, as `mmjax convert` writes it: "
        "this model is to be used, not trained. Set init.from_checkpoint of "
        "your own config to its workdir."
      )
    self.objectives = self.experiment.parts.objectives
    workdirs.check(workdir, config)
    self.checkpointer = checkpoint.Checkpointer(
      workdir / "checkpoints",
      keep=self.saving.keep,
      best_metric=self.saving.best_metric or None,
      best_mode=self.saving.best_mode,
      shared=shared,
    )
    self.evaluation = evaluation.Evaluation(config, self.experiment, workdir)
    self.results: dict[str, float] = {}  # Of the evaluation at ...
    self.results_step = 0  # ... this step.
    self._last: tuple[int, TrainState] | None = None  # Step done, and state.
    self.init_report = ""
    sources = self.experiment.parts.pipelines.values()
    self._watch = input_time.InputWatch(
      [source.spent for source in sources],
      makers=sum(source.workers or loader.NUM_THREADS for source in sources),
    )
    # By step, counted from 1: its tasks, each with the bucket of its batch.
    self._buckets: dict[int, tuple[tuple[str, int], ...]] = {}

  def _agree(self, free: float) -> float:
    """The least that any process has."""
    if self.job is None:
      return free
    return min(float(said) for said in self.job.gather(repr(free)))

  def execute(self) -> Outcome:
    """Trains until the end or until asked to stop; saves either way."""
    with self._stop_signal() as stop:
      state = self._start()
      # Not before all that can be wrong was found: a config that never
      # started must not bar the workdir to its correction.
      if self.writes:
        workdirs.claim(self.workdir, self.config)
        workdirs.save_tokenizer(self.workdir, self.experiment)
      first = int(jax.device_get(state.step))
      writer = self._open_writers(first)
      if first >= self.train.num_steps:
        self.checkpointer.close()
        writer.close()
        return Outcome(first, True, self.evaluation.read_results(first))
      if first == 0:
        writer.write(self._start_row())
      if self._remat:
        self.listener.on_message(self._remat)
      self.listener.on_start(self, first)
      made = self._batches(first)
      if self.job is not None:
        made = processes.check_ready(self.job, self._seen_by_all, first, made)
      put = self._watch.timed(self.experiment.put)
      batches = prefetch.Prefetcher(made, put)
      try:
        state, step = self._loop(state, batches, writer, stop)
      finally:
        batches.close()
        writer.close()
    finished = step == self.train.num_steps
    self.checkpointer.close()
    return Outcome(step, finished, self.results)

  def _start(self) -> TrainState:
    if self.checkpointer.latest() is not None:
      step, state, meta = self.checkpointer.restore(
        self.experiment.abstract_state
      )
      tokenizer_ids.check(self.experiment, state, meta)
      self.init_report = f"resumed from step {step}"
      return state
    state, self.init_report = initial.initial_state(
      self.config, self.experiment
    )
    tokenizer_ids.check(self.experiment, state)
    return state

  def _stop_signal(self) -> Any:
    return signals.StopSignal() if self.job is None else self.job.stop_signal()

  def _open_writers(self, first: int) -> writers.MultiWriter:
    if not self.writes:
      return writers.MultiWriter(())
    return writers.open_writers(
      self.workdir, resume_step=first, tensorboard=self.log.tensorboard
    )

  def _batches(self, first: int) -> Iterator[dict[str, Any]]:
    mixture = self.experiment.parts.mixture
    counts = mixture.counts(first)
    iterators = {
      task: loader.train_batches(
        source,
        batch_size=self.experiment.batching.sizes[task],
        seed=self.train.seed,
        start_step=counts[task],
        process_index=jax.process_index(),
        process_count=jax.process_count(),
      )
      for task, source in self.experiment.parts.pipelines.items()
    }
    batching = self.experiment.batching
    for step in itertools.count(first):
      batches = {task: next(iterators[task]) for task in mixture.at(step)}
      self._buckets[step + 1] = tuple(
        (task, batching.bucket(task, batch)) for task, batch in batches.items()
      )
      yield batches

  def _loop(self, state, batches, writer, stop):
    mixture = self.experiment.parts.mixture
    meter = metrics.Meter(
      examples_per_step=self.train.batch_size * len(mixture.choices[0]),
      peak_flops=_peak_flops(
        precision.policy(self.experiment.config.model.precision).products
      ),
    )
    log_every, conflict_every = self.log.every_steps, self.log.conflict_every

    @functools.cache  # The same for all steps of the same tasks.
    def work_of(tasks):
      shapes = self.experiment.batching.shapes(dict(tasks))
      return dict(
        tokens=_num_tokens(shapes),
        flops=self.experiment.flops_of(tasks),
        examples=_num_examples(shapes),
      )

    def measure_conflict(step, state, batch):
      if self.job is not None:
        self.job.steps(step)
      if conflict_every and step % conflict_every == 0:
        with meter.paused():
          found = self.experiment.run_conflict(state, batch)
          jax.block_until_ready(found)
        meter.note(found)

    def on_metrics(step, device_metrics):
      if self.job is not None:
        self.job.stepped(step)
      tasks = self._buckets.pop(step)
      meter.add(step, device_metrics, shape=tasks, **work_of(tasks))
      self.listener.on_step(step)
      if step % log_every == 0 or step in (1, self.train.num_steps):
        row = meter.row(input_wait_secs=batches.reset())
        row |= {"kind": "train", "learning_rate": self._learning_rate(step)}
        if bad := self._num_bad():
          row["bad_examples"] = bad
        parts, hint = self._watch.row(row.get("input_wait_fraction", 0.0))
        row |= parts
        writer.write(row)
        self.listener.on_log(row)
        if hint:
          self.listener.on_message(hint)
        if row.get("skipped", 0.0) >= 1.0 and step > 1:
          raise FloatingPointError(
            f"No step since the last log had a finite gradient (step "
            f"{step}). The last checkpoint is intact."
          )
        self._check_health(row)

    hooks = [
      loop.Hook(lambda step, state: self.checkpointer.check(), 1),
      loop.Hook(
        lambda step, state: self._evaluate(step, state, writer, meter), 1, False
      ),
    ]
    hooks.append(loop.Hook(self._save, self.saving.every_steps))
    try:
      state, step = loop.run(
        self.experiment.run_step,
        state,
        batches,
        num_steps=self.train.num_steps,
        on_metrics=on_metrics,
        hooks=hooks,
        should_stop=lambda: self._should_stop(stop),
        before_step=measure_conflict,
      )
    except Unhealthy:
      self.checkpointer.close()  # What it saves now is from before.
      raise
    except errors.UserError:
      self._rescue()
      raise
    if self.checkpointer.latest() != step:
      self._save(step, state)
    return state, step

  def _should_stop(self, stop):
    if self.job is None:
      return stop.requested
    step, _ = self._last
    self.job.waits_for_input(step + 1)
    return stop.reached(step)

  def _check_health(self, row):
    """Stops if an objective finds its own numbers of a row hopeless."""
    for name, item in self.objectives.items():
      check = getattr(item.objective, "check_metrics", None)
      if check is None:
        continue
      own = {
        key.removeprefix(f"{name}/"): value
        for key, value in row.items()
        if key.startswith(f"{name}/")
      }
      if not own:  # Its task was not drawn since the last row.
        continue
      if problem := check({"step": row["step"], **own}):
        raise Unhealthy(
          f"Stopped at step {row['step']}: the objective {name!r} says: "
          f"{problem} The last checkpoint before is kept."
        )

  def _evaluate(self, step, state, writer, meter):
    self._last = step, state
    last = step == self.train.num_steps and self.log.evaluate_at_end
    names = self.evaluation.due(step, last)
    if not names:
      return
    with meter.paused():
      self.results = self.evaluation.run(
        state.ema_variables, step, names, pictures=last
      )
      self.results_step = step
    row = {"kind": "eval", "step": step, "time": time.time(), **self.results}
    writer.write(row)
    self.listener.on_log(row)

  def _rescue(self):
    """Saves what was learned before the data turned out to be broken."""
    # Other processes may be fine, and saving waits for all of them.
    if self._last is None or jax.process_count() > 1:
      return
    step, state = self._last
    if self.checkpointer.latest() != step:
      self._save(step, state)
    self.checkpointer.close()

  def _num_bad(self):
    """Broken examples that this process met; evaluators count their own."""
    pipelines = self.experiment.parts.pipelines.values()
    return sum(len(source.bad) for source in pipelines)

  def _save(self, step, state):
    self.checkpointer.save(
      step,
      state,
      initial.checkpoint_meta(self.config, self.experiment, state, step),
      metrics=self.results if self.results_step == step else None,
    )

  @functools.cached_property
  def _schedule(self):
    settings = settings_lib.settings(self.config, "optimizer")
    return jax.jit(optimizer.learning_rate(settings, self.train.num_steps))

  def _learning_rate(self, step):
    return float(self._schedule(step - 1))

  def _start_row(self) -> dict[str, Any]:
    total, trained = self.experiment.num_params()
    return {
      "kind": "start",
      "step": 0,
      "time": time.time(),
      "stage": self.config.stage,
      "versions": initial.versions(),
      "device": initial.device_name(),
      "num_params": total,
      "trainable_params": trained,
      "num_steps": self.train.num_steps,
      "batch_size": self.train.batch_size,
      "flops_per_example": self.experiment.flops_per_example,
      "init": self.init_report,
      "chance": self.experiment.chance(),
    }


@functools.cache  # It takes a while, and a process may make several runs.
def _peak_flops(dtype):
  return metrics.measure_peak_flops(dtype)


def _num_tokens(shapes):
  """Tokens of text in a step, padding included."""
  texts = [fields["text"] for fields in shapes.values() if "text" in fields]
  return sum(int(np.prod(text.shape)) for text in texts)


def _num_examples(shapes):
  """Examples of all tasks of a step; of packed texts, rows."""
  return sum(next(iter(fields.values())).shape[0] for fields in shapes.values())
