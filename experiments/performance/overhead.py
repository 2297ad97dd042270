r"""What the training loop adds to the device's time, and whether it grows.

python experiments/performance/overhead.py [STEPS]

One tiny model, float32, in one process on one CPU device. In turns, ROUNDS
times each, over 2,000 steps (or STEPS):

  bare      the compiled step alone, on one batch that stays on the device
  loop      `mmjax train` from batch to log row, on a batch that is at hand
  run       the same with its input: examples drawn, masked, put on the device

Of each the time by the clock, and that which the main thread computed: the
second hardly depends on what else the machine does.

Then one run of five times as many steps: its resident memory after a fifth and
at the end, its speed in both, and what was compiled after the first row.
"""

import contextlib
import io
import itertools
import re
import sys
import tempfile
import time
from pathlib import Path

import jax
import ml_collections as mlc
import numpy as np

from mmjax.build import experiment, initial, settings, training
from mmjax.cli import progress
from mmjax.data import loader

ROUNDS = 3
LOG_EVERY = 50  # The default.
COMPILED = "/jax/core/compile/backend_compile_duration"


def config(num_steps: int) -> mlc.ConfigDict:
  """A classifier of one layer; checkpoints at the end only."""
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=32), label=dict(field="group")
  )
  size = dict(embed_dim=32, num_layers=1, num_heads=2, mlp_dim=64)
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=8, size=size, pool="mean")),
    precision="float32",
  )
  c.tasks = dict(main=dict(objectives=dict(label=dict(name="classification"))))
  c.train = dict(num_steps=num_steps, batch_size=8)
  c.log = dict(every_steps=LOG_EVERY)
  return settings.resolve(c)


class Listener(progress.Progress):
  """The command line's, and notes of each step."""

  def __init__(self, num_steps: int):
    super().__init__("overhead", num_steps)
    self.at: dict[int, np.ndarray] = {}  # See `now`.
    self.mib: dict[int, float] = {}
    self.compiled: dict[int, int] = {}
    self._compiled = 0

  def hear(self, event, secs, **kwargs):
    """Counts what is compiled."""
    del secs, kwargs
    self._compiled += event == COMPILED

  def on_log(self, row):
    """Notes where the process stands; the row has waited for its steps."""
    super().on_log(row)
    self.at[row["step"]] = now()
    self.mib[row["step"]] = resident_mib()
    self.compiled[row["step"]] = self._compiled


def now() -> np.ndarray:
  """Milliseconds by the clock, and of this thread."""
  return 1e3 * np.array([time.perf_counter(), time.thread_time()])


def resident_mib() -> float:
  """Memory of this process, MiB."""
  status = Path("/proc/self/status").read_text("utf-8")
  return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def bare(num_steps: int) -> np.ndarray:
  """Milliseconds of a step alone."""
  made = experiment.prepare(config(num_steps), jax.devices()[:1])
  state, _ = initial.initial_state(made.config, made)
  (source,) = made.parts.pipelines.values()
  batches = loader.train_batches(source, batch_size=8, seed=0, num_threads=0)
  batch = made.put({"main": next(batches)})
  for _ in range(LOG_EVERY):
    state, metrics = made.run_step(state, batch)
  jax.block_until_ready(metrics)
  start = now()
  for step in range(num_steps):
    state, metrics = made.run_step(state, batch)
    if step % LOG_EVERY == 0:
      jax.block_until_ready(metrics)
  jax.block_until_ready(metrics)
  return (now() - start) / num_steps


class AtHand(training.Run):
  """A run whose input costs nothing: the same batch again."""

  def _batches(self, first):
    batches = super()._batches(first)
    batch = next(batches)
    found = self._buckets[first + 1]
    batches.close()
    placed = self.experiment.put(batch)
    # Read by `execute` after this; the dataclass is frozen.
    self.experiment.__dict__["put"] = lambda batch: batch

    def again():
      for step in itertools.count(first):
        self._buckets[step + 1] = found
        yield placed

    return again()


def run(num_steps: int, kind: type[training.Run]) -> Listener:
  """Trains as `mmjax train` does, but says nothing."""
  listener = Listener(num_steps)
  jax.monitoring.register_event_duration_secs_listener(listener.hear)
  try:
    with tempfile.TemporaryDirectory() as folder:
      with contextlib.redirect_stdout(io.StringIO()), listener:
        kind(config(num_steps), Path(folder) / "run", listener).execute()
  finally:
    jax.monitoring.unregister_event_duration_listener(listener.hear)
  return listener


def step_ms(listener: Listener, first: int, last: int) -> np.ndarray:
  """Milliseconds of a step between two rows of the log."""
  return (listener.at[last] - listener.at[first]) / (last - first)


def main(steps: str = "2000") -> None:
  """Prints a table."""
  num_steps = int(steps)
  found = {"bare": [], "loop": [], "run": []}
  for _ in range(ROUNDS):
    found["bare"].append(bare(num_steps))
    for name, kind in (("loop", AtHand), ("run", training.Run)):
      listener = run(num_steps + LOG_EVERY, kind)
      found[name].append(step_ms(listener, LOG_EVERY, num_steps + LOG_EVERY))
  print("| ms a step, least | by the clock | of the main thread |")
  print("|---|---|---|")
  least = {name: np.min(rounds, axis=0) for name, rounds in found.items()}
  for name, ms in least.items():
    print(f"| {name} | {ms[0]:.3f} | {ms[1]:.3f} |")
  for name in ("loop", "run"):
    ms = least[name] - least["bare"]
    print(f"| {name} adds | {ms[0]:.3f} | {ms[1]:.3f} |")
  long = run(5 * num_steps, training.Run)
  early = step_ms(long, LOG_EVERY, num_steps)
  late = step_ms(long, 4 * num_steps, 5 * num_steps)
  compiled = long.compiled[5 * num_steps] - long.compiled[2 * LOG_EVERY]
  print(
    f"\nA run of {5 * num_steps} steps: {early[0]:.3f} ms a step at first, "
    f"{late[0]:.3f} at last; main thread {early[1]:.3f}, {late[1]:.3f}; "
    f"resident {long.mib[num_steps]:.1f} MiB after {num_steps} steps, "
    f"{long.mib[5 * num_steps]:.1f} at the end; {compiled} programs compiled "
    f"after step {2 * LOG_EVERY}."
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
