r"""Seconds from `mmjax train` to the end of its first step, by parts.

python experiments/performance/startup.py [vit|pair] [ROUNDS]

Of an S-size model on drawn data, 224 pixels: a ViT-S/16 that classifies, or
with a text encoder of the same size that is contrasted with it. Each run is a
process of its own. The first fills the compilation cache, which is a folder of
its own, and is not counted; of the others the fastest is shown.

This file is the config too:

mmjax train --config=experiments/performance/startup.py:vit --workdir=W
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import ml_collections as mlc


def get_config(arg: str = "vit") -> mlc.ConfigDict:
  """`arg` is "vit" or "pair"."""
  c = mlc.ConfigDict()
  c.data = dict(source="synthetic", image=dict(size=224))
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=16, size="S", pool="mean"))
  )
  if arg == "pair":
    c.data.text = dict(tokenizer="starter", max_tokens=64)
    c.model.encoders.text = dict(name="text", size="S", pool="mean")
    c.model.shared_dim = 384
    objective = dict(name="contrastive")
  else:
    c.data.label = dict(field="group")
    objective = dict(name="classification")
  c.tasks = dict(main=dict(objectives=dict(main=objective)))
  c.train = dict(num_steps=2, batch_size=8)
  c.optimizer = dict(warmup_steps=0)
  c.log = dict(every_steps=1)
  return c


class Watch:
  """Seconds of functions, without what they call of the others.

  By the clock, and of all cores together: the second hardly depends on what
  else the machine does.
  """

  def __init__(self, start: float):
    self.secs: dict[str, float] = {}
    self.cpu_secs: dict[str, float] = {}
    self._last, self._name = (start, 0.0), "start Python"

  def mark(self, name: str) -> str:
    """What ran ends here, and `name` begins; returns what ran."""
    now, before = (time.time(), time.process_time()), self._name
    for secs, end, begin in zip(
      (self.secs, self.cpu_secs), now, self._last, strict=True
    ):
      secs[before] = secs.get(before, 0.0) + end - begin
    self._last, self._name = now, name
    return before

  def wrap(self, owner, attribute, name):
    """Books the time of a function under a name."""
    function = getattr(owner, attribute)

    def timed(*args, **kwargs):
      before = self.mark(name)
      try:
        return function(*args, **kwargs)
      finally:
        self.mark(before)

    setattr(owner, attribute, timed)


def child(start: float, arg: str, workdir: str) -> None:
  """Trains one step and prints the parts as JSON."""
  watch = Watch(start)
  watch.mark("import jax, flax, optax")
  import flax.linen
  import jax
  import optax  # noqa: F401

  del flax
  watch.mark("import mmjax and the rest")
  from mmjax.build import experiment, initial, training
  from mmjax.cli import main, progress
  from mmjax.train import metrics

  watch.mark("everything else")
  watch.wrap(experiment, "prepare", "build, trace init")
  watch.wrap(initial, "initial_state", "initial state")
  watch.wrap(training.Run, "_start_row", "count FLOPs")
  watch.wrap(metrics, "measure_peak_flops", "measure the peak")
  watch.wrap(experiment.Experiment, "run_step", "trace, load and start step")
  watch.wrap(metrics.Meter, "row", "wait for the first step")
  compiled = {"loaded": 0.0, "compiled": 0.0, "programs": 0}

  def hear(event, secs, **kwargs):
    del kwargs
    if event.endswith("cache_retrieval_time_sec"):
      compiled["loaded"] += secs
    elif event.endswith("backend_compile_duration"):
      compiled["compiled"] += secs
      compiled["programs"] += 1

  jax.monitoring.register_event_duration_secs_listener(hear)

  def stop(self, row):
    del self, row
    watch.mark("")
    found = {"secs": watch.secs, "cpu": watch.cpu_secs, "compile": compiled}
    print(json.dumps(found), flush=True)
    os._exit(0)

  progress.Progress.on_log = stop
  main.run(["train", f"--config={__file__}:{arg}", f"--workdir={workdir}"])


def measure(arg: str, cache: str) -> dict:
  """What a process of its own says of its start."""
  with tempfile.TemporaryDirectory() as workdir:
    done = subprocess.run(
      [sys.executable, __file__, "child", str(time.time()), arg, workdir],
      env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
      check=True,
      stdout=subprocess.PIPE,
      text=True,
    )
  return json.loads(done.stdout.splitlines()[-1])


def main(arg: str = "vit", rounds: str = "3") -> None:
  """Prints a Markdown table."""
  with tempfile.TemporaryDirectory() as cache:
    cold = measure(arg, cache)
    runs = [measure(arg, cache) for _ in range(int(rounds))]

  def total(run, kind="secs"):
    return sum(run[kind].values())

  best = min(runs, key=total)
  print(f"| part of {arg} | warm, s | CPU-s | cold, s | CPU-s |")
  print("|---|---|---|---|---|")
  for name in best["secs"]:
    cells = (run[kind].get(name, 0.0) for run, kind in _columns(best, cold))
    print(f"| {name} |", " | ".join(f"{cell:.2f}" for cell in cells), "|")
  cells = (total(run, kind) for run, kind in _columns(best, cold))
  print("| all |", " | ".join(f"{cell:.2f}" for cell in cells), "|")
  for name, run in (("warm", best), ("cold", cold)):
    found = run["compile"]
    print(
      f"{name}: {found['programs']} programs, {found['compiled']:.2f} s; of "
      f"these read from the cache {found['loaded']:.2f} s"
    )
  print("all runs, s:", *(f"{total(run):.2f}" for run in runs))


def _columns(*runs):
  return [(run, kind) for run in runs for kind in ("secs", "cpu")]


if __name__ == "__main__":
  if sys.argv[1:2] == ["child"]:
    child(float(sys.argv[2]), *sys.argv[3:])
  else:
    main(*sys.argv[1:])
