"""Unpaired batches beside paired ones: text only, pictures only, both."""

import json
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.build import settings, training
from mmjax.core import config as config_lib
from mmjax.core import trees
from mmjax.data import mixture
from mmjax.train.checkpoint import Checkpointer

TINY = Path(__file__).with_name("tiny.py")
COMPILED = "/jax/core/compile/backend_compile_duration"
NUM_STEPS, SEED = 9, 9  # All three tasks are drawn, some again.
RATES = dict(pairs=1.0, pictures=1.0, words=2.0)
OF_TASK = dict(
  pairs=("mlm", "contrastive"), pictures=("vtp",), words=("words_mlm",)
)


def config(kind):
  c = config_lib.load(f"{TINY}:pretrain")
  c.tasks = dict(
    pairs=dict(
      objectives=dict(
        mlm=dict(
          name="masked_lm",
          weight=dict(name="linear", points=((0, 0.5), (4, 1.0))),
        ),
        contrastive=dict(name="contrastive"),
      )
    ),
    pictures=dict(
      data=dict(text=None),
      objectives=dict(vtp=dict(name="vision_token_prediction", given=())),
    ),
    words=dict(
      data=dict(image=None),
      objectives=dict(words_mlm=dict(name="masked_lm", given=())),
    ),
  )
  c.model.encoders.image.hidden = "replace"
  c.mixture = kind
  c.weighting = dict(name="uncertainty")
  c.train.num_steps, c.train.seed = NUM_STEPS, SEED
  if kind == "sum":
    c.log.conflict_every = 3
  else:
    for task, rate in RATES.items():
      c.tasks[task].rate = rate
  return settings.resolve(c)


class Listener(training.Listener):
  """Counts what was compiled; may ask the run to stop after a step."""

  def __init__(self, stop_after=0):
    self.stop_after = stop_after
    self.compiled = 0
    self.after_step = {}
    self.state = None

  def hear(self, event, duration, **kwargs):
    self.compiled += event == COMPILED

  def on_step(self, step):
    self.after_step[step] = self.compiled
    if step == self.stop_after:
      signal.raise_signal(signal.SIGTERM)


def train(kind, workdir, stop_after=0):
  """Trains, or goes on; returns the end, the log and the listener."""
  listener = Listener(stop_after)
  jax.monitoring.register_event_duration_secs_listener(listener.hear)
  run = training.Run(config(kind), workdir, listener)
  try:
    outcome = run.execute()
  finally:
    jax.monitoring.unregister_event_duration_listener(listener.hear)
  checkpointer = Checkpointer(workdir / "checkpoints")
  _, state, meta = checkpointer.restore(run.experiment.abstract_state)
  checkpointer.close()
  state = state.replace(rng=jax.random.key_data(state.rng))
  arrays = {n: np.asarray(x) for n, x in trees.flatten(state).items()}
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [r for r in map(json.loads, lines) if r["kind"] == "train"]
  return outcome, arrays, meta["data"], rows, listener


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
  return train("sample", tmp_path_factory.mktemp("sampled"))


def tasks():
  made = mixture.Sample(RATES, SEED)
  return [made.at(step)[0] for step in range(NUM_STEPS)]


def losses(row):
  return {n.removesuffix("/loss") for n in row if n.endswith("/loss")}


@pytest.mark.slow
def test_each_step_trains_the_task_that_was_drawn(sampled):
  _, arrays, data, rows, _ = sampled

  drawn = tasks()
  assert set(drawn) == set(RATES)
  assert [losses(row) for row in rows] == [set(OF_TASK[t]) for t in drawn]
  assert {t: d["examples"] for t, d in data.items()} == {
    t: 8 * drawn.count(t) for t in RATES
  }
  # Both log variances and heads of all tasks were moved.
  for name in ("mlm", "contrastive", "vtp", "words_mlm"):
    assert arrays[f"params/loss_weights/log_variance/{name}"] != 0.0


@pytest.mark.slow
def test_each_task_is_compiled_once(sampled):
  listener = sampled[-1]
  drawn, after = tasks(), listener.after_step
  # What was saved after steps 3 and 6 may be compiled before the next.
  again = [
    step
    for step in range(2, NUM_STEPS + 1)
    if step % 3 != 1 and drawn[step - 1] in drawn[: step - 1]
  ]

  assert len(again) > 2
  assert [s for s in again if after[s] != after[s - 1]] == []


@pytest.mark.slow
def test_sampled_run_goes_on_bit_for_bit(sampled, tmp_path):
  outcome, *_ = train("sample", tmp_path, stop_after=5)
  assert (outcome.step, outcome.finished) == (5, False)

  _, arrays, data, rows, _ = train("sample", tmp_path)

  _, expected, expected_data, expected_rows, _ = sampled
  assert arrays.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(arrays[name], value, err_msg=name)
  assert data == expected_data
  assert [r["loss"] for r in rows] == [r["loss"] for r in expected_rows]


@pytest.mark.slow
def test_sum_trains_all_tasks_in_each_step_and_measures_conflict(tmp_path):
  _, arrays, data, rows, _ = train("sum", tmp_path)

  names = {n for task in OF_TASK.values() for n in task}
  assert all(losses(row) == names for row in rows)
  assert {d["examples"] for d in data.values()} == {8 * NUM_STEPS}
  for row in rows:
    cosines = {n for n in row if n.startswith("grad_cosine/")}
    # Words and pictures have no parameter in common, all others have.
    assert len(cosines) == (5 if row["step"] % 3 == 0 else 0)
    assert all(-1.0 <= row[n] <= 1.0 for n in cosines)
  ramp = [row["mlm/weight"] for row in rows[:1]]
  assert ramp == [pytest.approx(0.5)]  # Times exp(0).
