"""Real processes: killed, asked to stop, started again."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.build import experiment
from mmjax.cli import arguments
from mmjax.core import trees
from mmjax.train.checkpoint import Checkpointer

TINY = Path(__file__).with_name("tiny.py")
NUM_STEPS = 12


def start(workdir, *overrides):
  command = [
    sys.executable,
    "-m",
    "mmjax",
    "train",
    f"--config={TINY}:pretrain",
    f"--workdir={workdir}",
    f"--config.train.num_steps={NUM_STEPS}",
    "--config.data.extra=({'name': 'slow_data:Wait'},)",
    *overrides,
  ]
  return subprocess.Popen(
    command,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
    env=os.environ | {"XLA_FLAGS": ""},
  )


def finish(process):
  output, _ = process.communicate(timeout=240)
  return process.returncode, output


def rows(workdir, kind="train"):
  path = workdir / "metrics.jsonl"
  if not path.exists():
    return []
  lines = [line for line in path.read_text().split("\n") if line.endswith("}")]
  return [row for row in map(json.loads, lines) if row["kind"] == kind]


def wait_for_step(workdir, process, step):
  deadline = time.monotonic() + 180
  while not any(row["step"] >= step for row in rows(workdir)):
    assert process.poll() is None, finish(process)
    assert time.monotonic() < deadline
    time.sleep(0.01)


def final_state(workdir):
  """All arrays of the last step, bit for bit, and the data position."""
  config = arguments.load_saved(workdir, ["--config.data.extra=()"])
  made = experiment.prepare(config, jax.devices()[:1])
  checkpointer = Checkpointer(workdir / "checkpoints")
  _, state, meta = checkpointer.restore(made.abstract_state, NUM_STEPS)
  checkpointer.close()
  state = state.replace(rng=jax.random.key_data(state.rng))
  arrays = {n: np.asarray(x) for n, x in trees.flatten(state).items()}
  return arrays, meta["data"]


def assert_same_end(workdir, other):
  got, data = final_state(workdir)
  expected, expected_data = final_state(other)
  assert got.keys() == expected.keys()
  for name, value in expected.items():
    np.testing.assert_array_equal(got[name], value, err_msg=name)
  assert data == expected_data
  assert losses(workdir) == losses(other)
  steps = [row["step"] for row in rows(workdir)]
  assert steps == list(range(1, NUM_STEPS + 1))  # None twice, none left out.


def kill(workdir, step, *overrides):
  process = start(workdir, *overrides)
  wait_for_step(workdir, process, step)
  process.send_signal(signal.SIGKILL)
  code, _ = finish(process)
  assert code == -signal.SIGKILL


def losses(workdir):
  return {row["step"]: row["loss"] for row in rows(workdir)}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("uninterrupted")
  code, output = finish(start(workdir))
  assert code == 0, output
  return workdir


@pytest.mark.slow
def test_killed_run_goes_on_bit_for_bit(uninterrupted, tmp_path):
  for step in (5, 8):  # Killed twice, off the steps that were saved.
    kill(tmp_path, step)
  code, output = finish(start(tmp_path))
  assert code == 0, output
  assert "resumed from step" in output
  assert_same_end(tmp_path, uninterrupted)


@pytest.mark.slow
def test_killed_run_with_average_and_micro_batches_goes_on_bit_for_bit(
  tmp_path,
):
  flags = (
    "--config.optimizer.ema_decay=0.9",
    "--config.train.accumulate=2",
    "--config.tasks.main.objectives.contrastive.negatives=micro_batch",
  )
  code, output = finish(start(tmp_path / "whole", *flags))
  assert code == 0, output
  kill(tmp_path / "killed", 7, *flags)
  code, output = finish(start(tmp_path / "killed", *flags))
  assert code == 0, output
  assert_same_end(tmp_path / "killed", tmp_path / "whole")
  names = final_state(tmp_path / "whole")[0]
  assert any(name.startswith("ema/") for name in names)


@pytest.mark.slow
def test_sigterm_saves_and_exits_0(uninterrupted, tmp_path):
  process = start(tmp_path)
  wait_for_step(tmp_path, process, 4)
  process.send_signal(signal.SIGTERM)
  code, output = finish(process)
  assert code == 0, output
  saved = Checkpointer(tmp_path / "checkpoints").latest()
  assert saved is not None and 4 <= saved < NUM_STEPS
  assert f"stopped and saved step {saved}" in output
  code, output = finish(start(tmp_path))
  assert code == 0, output
  assert_same_end(tmp_path, uninterrupted)


@pytest.mark.slow
def test_second_sigterm_stops_at_once(tmp_path):
  # Eight examples of 3 seconds: the first signal waits for its step.
  slow = "--config.data.extra=({'name': 'slow_data:Wait', 'secs': 3.0},)"
  process = start(tmp_path, slow, "--config.data.cache_mib=0")
  deadline = time.monotonic() + 180
  while not rows(tmp_path, kind="start"):
    assert process.poll() is None, finish(process)
    assert time.monotonic() < deadline
    time.sleep(0.01)
  process.send_signal(signal.SIGTERM)
  time.sleep(1.0)
  assert process.poll() is None  # Still finishing its step.
  process.send_signal(signal.SIGTERM)
  begin = time.monotonic()
  code, output = finish(process)
  assert time.monotonic() - begin < 5.0
  assert code == 128 + signal.SIGTERM
  assert "SIGTERM: finishing this step, then saving" in output
  assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.slow
def test_finished_run_says_so_and_changes_nothing(uninterrupted):
  before = {
    p: p.stat().st_mtime_ns for p in (uninterrupted / "checkpoints").rglob("*")
  }
  code, output = finish(start(uninterrupted))
  assert code == 0
  assert f"done, step {NUM_STEPS} of {NUM_STEPS}" in output
  after = {
    p: p.stat().st_mtime_ns for p in (uninterrupted / "checkpoints").rglob("*")
  }
  assert after == before


@pytest.mark.slow
def test_other_config_is_refused_with_what_changed(uninterrupted):
  code, output = finish(start(uninterrupted, "--config.optimizer.peak_lr=0.5"))
  assert code == 2
  assert "optimizer.peak_lr: 0.003 -> 0.5" in output
  assert "Traceback" not in output
