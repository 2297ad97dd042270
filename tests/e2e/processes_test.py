"""Real processes that train one model over loopback.

One story, so that few processes are started: two train, the second is late,
then killed; two go on, one of them is asked to stop; four go on upon another
mesh, and lose the first of them; one finishes. It must end where one process
ends that nobody disturbed.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.py")
NUM_STEPS = 40
LIMIT_SECS = 60  # In which the others must stop.
PATIENCE_SECS = 600  # With a busy machine; nothing is measured by it.
LATE = r"STRAGGLER process 1 \(.*\) keeps the others waiting.* its data.*"
LONELY = ("--coordinator=localhost:9", "--process=1", "--wait_secs=1")
FSDP = (
  "--config.mesh.data=2",
  "--config.mesh.fsdp=2",
  "--config.mesh.rules=fsdp",
)


class Started:
  """The processes of a job, each with its output in a file."""

  def __init__(self, workdir, count, *flags, each=None, **environ):
    with socket.socket() as free:
      free.bind(("localhost", 0))
      port = free.getsockname()[1]
    self.logs = [
      workdir.parent / f"{workdir.name}-{time.monotonic_ns()}-{i}.log"
      for i in range(count)
    ]
    self.processes = []
    for i, log in enumerate(self.logs):
      several = (f"--coordinator=localhost:{port}", f"--process={i}")
      command = [
        *(sys.executable, "-m", "mmjax", "train"),
        f"--config={TINY}:finetune",
        f"--workdir={workdir}",
        f"--config.train.num_steps={NUM_STEPS}",
        "--config.data.extra=({'name': 'late_data:Late'},)",
        "--config.data.cache_mib=0",
        f"--processes={count}",
        *(several if count > 1 else ()),
        *flags,
        *((each or {}).get(i, ())),
      ]
      with log.open("w") as out:
        self.processes.append(
          subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": "1"} | environ,
          )
        )

  def output(self, process):
    return self.logs[process].read_text()

  def wait_for(self, process, text):
    deadline = time.monotonic() + PATIENCE_SECS
    while not (found := re.search(text, self.output(process))):
      if self.processes[process].poll() is not None or (
        time.monotonic() > deadline
      ):
        self.kill()
        pytest.fail(f"{text!r} is not in: {self.output(process)}")
      time.sleep(0.02)
    return found

  def end(self, limit=PATIENCE_SECS):
    """Waits for all; returns their exit statuses."""
    deadline = time.monotonic() + limit
    try:
      return [
        p.wait(max(deadline - time.monotonic(), 0.1)) for p in self.processes
      ]
    finally:
      self.kill()

  def kill(self):
    for process in self.processes:
      process.kill()
      process.wait()


def steps(workdir):
  return sorted(int(p.name) for p in (workdir / "checkpoints").glob("[0-9]*"))


def losses(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  rows = [json.loads(line) for line in lines]
  return {r["step"]: r["loss"] for r in rows if r["kind"] == "train"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Losses of a run of one process."""
  workdir = tmp_path_factory.mktemp("alone") / "run"
  job = Started(workdir, 1)
  assert job.end() == [0], job.output(0)
  return losses(workdir)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  """The workdir, and what happened in each chapter."""
  workdir = tmp_path_factory.mktemp("together") / "run"
  told = {}

  job = Started(workdir, 2, "--straggler_secs=2", LATE_SECS="0.5")
  job.wait_for(0, LATE)
  while not list((workdir / "checkpoints").glob("*/manifest.json")):
    job.wait_for(0, r"finetune \d+/")  # Fails if the job has.
    time.sleep(0.02)
  job.processes[1].kill()
  begin = time.monotonic()
  told["late and killed"] = job, job.end(LIMIT_SECS + 20), begin
  told["seconds"] = time.monotonic() - begin

  job = Started(workdir, 2)
  step = int(job.wait_for(0, r"resumed from step (\d+)")[1])
  job.wait_for(0, rf"finetune {step + 3}/")
  job.processes[1].send_signal(signal.SIGTERM)
  told["asked to stop"] = job, job.end(), steps(workdir)

  job = Started(workdir, 4, *FSDP)
  step = int(job.wait_for(0, r"resumed from step (\d+)")[1])
  job.wait_for(0, rf"finetune {step + 4}/")
  job.processes[0].kill()
  told["first killed"] = job, job.end(LIMIT_SECS + 20), steps(workdir)

  job = Started(workdir, 1, *FSDP, JAX_NUM_CPU_DEVICES="4")
  told["one finishes"] = job, job.end(), steps(workdir)
  return workdir, told


@pytest.mark.slow
def test_late_process_is_named(story):
  job, *_ = story[1]["late and killed"]

  assert f"pid {job.processes[1].pid})" in re.search(LATE, job.output(0))[0]
  assert not re.search("STRAGGLER process 0 .* its data", job.output(0))


@pytest.mark.slow
def test_device_map_is_printed_once(story):
  job, *_ = story[1]["late and killed"]

  assert re.search(
    r"2 processes, 2 devices\n"
    r"  process 0 \(.*, pid \d+\): cpu 0\n"
    r"  process 1 \(.*, pid \d+\): cpu \d+\n",
    job.output(0),
  )
  assert "2 processes" not in job.output(1)


@pytest.mark.slow
def test_killed_process_stops_the_other_with_its_name(story):
  job, codes, _ = story[1]["late and killed"]

  assert codes == [1, -signal.SIGKILL]
  assert story[1]["seconds"] < LIMIT_SECS
  pid = job.processes[1].pid
  assert re.search(rf"process 1 \(.*pid {pid}\) is gone", job.output(0))


@pytest.mark.slow
def test_sigterm_of_one_saves_the_same_step_in_all(story):
  job, codes, saved = story[1]["asked to stop"]

  assert codes == [0, 0], job.output(0) + job.output(1)
  said = re.search(r"stopped and saved step (\d+)", job.output(0))
  assert said and int(said[1]) == saved[-1] < NUM_STEPS


@pytest.mark.slow
def test_killed_first_process_stops_the_others_with_its_name(story):
  job, codes, _ = story[1]["first killed"]

  assert codes[0] == -signal.SIGKILL
  assert all(code not in (0, -signal.SIGKILL) for code in codes[1:])
  pid = job.processes[0].pid
  for process in (1, 2, 3):
    assert re.search(
      rf"process 0 \(.*pid {pid}\) is gone|leader task was", job.output(process)
    )


@pytest.mark.slow
def test_checkpoint_of_two_processes_goes_on_with_four_and_one(story):
  told = story[1]
  stopped = told["asked to stop"][2][-1]
  left = told["first killed"][2][-1]

  assert f"resumed from step {stopped}" in told["first killed"][0].output(0)
  job, codes, saved = told["one finishes"]
  assert codes == [0], job.output(0)
  assert f"resumed from step {left}" in job.output(0)
  assert left > stopped and saved[-1] == NUM_STEPS


@pytest.mark.slow
def test_disturbed_run_ends_as_one_process_does(story, undisturbed):
  got = losses(story[0])

  assert list(got) == list(range(1, NUM_STEPS + 1))  # None twice or left out.
  assert got == pytest.approx(undisturbed, rel=1e-5)


@pytest.mark.slow
def test_processes_that_differ_are_refused_with_what_differs(tmp_path):
  each = {1: ("--config.optimizer.peak_lr=0.5",)}
  job = Started(tmp_path / "run", 2, each=each)

  assert job.end() == [2, 2], job.output(0)
  for process in (0, 1):
    assert "config.optimizer.peak_lr: 0.003 in process 0" in job.output(process)
    assert "Traceback" not in job.output(process)
  assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_process_whose_others_never_come_gives_up(tmp_path):
  # The last flag of a name counts.
  job = Started(tmp_path / "run", 1, "--processes=2", *LONELY)

  assert job.end() == [2]
  assert "process 1 of 2 waited 1 s for the others" in job.output(0)
