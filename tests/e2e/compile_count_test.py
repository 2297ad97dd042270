"""A run compiles its programs once."""

from pathlib import Path

import jax
import pytest

from mmjax.build import experiment, initial, settings, training
from mmjax.core import config as config_lib
from mmjax.data import loader

TINY = Path(__file__).with_name("tiny.py")
COMPILED = "/jax/core/compile/backend_compile_duration"


class Counts(training.Listener):
  """How much was compiled when a step was handed over."""

  def __init__(self):
    self.compiled = 0
    self.after_step = {}

  def hear(self, event, duration, **kwargs):
    self.compiled += event == COMPILED

  def on_step(self, step):
    self.after_step[step] = self.compiled


@pytest.fixture(scope="module")
def hear():
  listener = Counts()
  jax.monitoring.register_event_duration_secs_listener(listener.hear)
  yield listener
  jax.monitoring.unregister_event_duration_listener(listener.hear)


@pytest.fixture(scope="module")
def counts(hear, tmp_path_factory):
  config = config_lib.load(f"{TINY}:tokenizer,evaluated")
  config.train.num_steps = 8
  config.log.every_steps = 2
  config.checkpoint.every_steps = 2
  config.evaluators.pictures.every_steps = 2
  workdir = tmp_path_factory.mktemp("run")
  training.Run(settings.resolve(config), workdir, hear).execute()
  return hear


@pytest.mark.slow
def test_steps_after_the_first_compile_nothing(hear):
  made = experiment.prepare(
    settings.resolve(config_lib.load(f"{TINY}:tokenizer"))
  )
  state, _ = initial.initial_state(made.config, made)
  (source,) = made.parts.pipelines.values()
  batches = loader.train_batches(source, batch_size=8, seed=0, num_threads=0)
  compiled = []
  for _ in range(4):
    batch = made.put({"main": next(batches)})
    before = hear.compiled
    state, _ = made.run_step(state, batch)
    compiled.append(hear.compiled - before)

  assert compiled[0] > 0
  assert compiled[1:] == [0, 0, 0]


@pytest.mark.slow
def test_nothing_is_compiled_once_all_was_done(counts):
  # Step 2 is the first that is evaluated and saved, step 4 the first whose
  # metrics are added to those of a step before it.
  compiled = [counts.after_step[step] for step in range(4, 9)]

  assert compiled == compiled[:1] * 5
