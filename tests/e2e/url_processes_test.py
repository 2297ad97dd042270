"""Real processes that train one model behind a URL, and share no folder.

One story: two train, and the second is killed while it uploads its part of a
checkpoint; two go on upon another mesh, and one is asked to stop; one
finishes. It must end where one process ends that nobody disturbed.
"""

import re
import signal
from pathlib import Path

import pytest

from mmjax.train import manifest
from tests.e2e.processes_test import FSDP, Started, losses

CONFIG = f"--config={Path(__file__).with_name('tiny_url.py')}:finetune"
NUM_STEPS = 24
FLAGS = (CONFIG, f"--config.train.num_steps={NUM_STEPS}")


class Behind(Started):
  """Processes whose temporary folders and workdir are below one folder."""

  def __init__(self, base, name, count, *flags, **environ):
    temporary = base / f"tmp-{name}"
    temporary.mkdir()
    super().__init__(
      base / name,
      count,
      f"--workdir=local://{base}/bucket/run",  # The last flag counts.
      *FLAGS,
      *flags,
      JAX_NUM_CPU_DEVICES=str(4 // count),
      TMPDIR=str(temporary),  # Where each process makes a folder of its own.
      FSSPEC_LOCAL_AUTO_MKDIR="true",
      **environ,
    )


def _saved(run):
  """Steps there, and whether each is as its manifest says it is."""
  return {
    int(p.name): manifest.exists(p) and not manifest.verify(p)
    for p in (run / "checkpoints").glob("[0-9]*")
  }


def _newest(saved):
  return max(step for step, good in saved.items() if good)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  """Losses of a run of one process, in a folder."""
  workdir = tmp_path_factory.mktemp("alone") / "run"
  job = Started(workdir, 1, *FLAGS)
  assert job.end() == [0], job.output(0)
  return losses(workdir)


@pytest.fixture(scope="module")
def story(tmp_path_factory):
  """The folder behind the URL, and what happened in each chapter."""
  base = tmp_path_factory.mktemp("together")
  run, told = base / "bucket" / "run", {}

  job = Behind(base, "killed", 2, *FSDP, DIE_WHILE_UPLOADING="1")
  told["killed"] = job, job.end(), _saved(run)

  job = Behind(base, "stopped", 2, LATE_SECS="0.05")
  step = int(job.wait_for(0, r"resumed from step (\d+)")[1])
  job.wait_for(0, rf"finetune {step + 1}/")
  job.processes[1].send_signal(signal.SIGTERM)
  told["stopped"] = job, job.end(), _saved(run)

  job = Behind(base, "finished", 1, *FSDP)
  told["finished"] = job, job.end(), _saved(run)
  return run, told


@pytest.mark.slow
def test_killed_while_it_uploads_leaves_no_step_that_is_restored(story):
  job, codes, saved = story[1]["killed"]

  assert codes == [1, -signal.SIGKILL], job.output(0)
  assert max(saved) > _newest(saved)
  after = story[1]["stopped"][0]
  assert f"resumed from step {_newest(saved)}" in after.output(0)


@pytest.mark.slow
def test_sigterm_of_one_saves_the_same_step_behind_the_url(story):
  job, codes, saved = story[1]["stopped"]

  assert codes == [0, 0], job.output(0) + job.output(1)
  said = re.search(r"stopped and saved step (\d+)", job.output(0))
  assert said and int(said[1]) == _newest(saved) < NUM_STEPS


@pytest.mark.slow
def test_one_process_goes_on_from_the_parts_of_two(story, undisturbed):
  job, codes, saved = story[1]["finished"]

  assert codes == [0], job.output(0)
  stopped = _newest(story[1]["stopped"][2])
  assert f"resumed from step {stopped}" in job.output(0)
  got = losses(story[0])
  assert list(got) == list(range(1, NUM_STEPS + 1))  # None twice or left out.
  assert got == pytest.approx(undisturbed, rel=1e-5)
  assert len(saved) == 2 and max(saved) == NUM_STEPS and all(saved.values())


@pytest.mark.slow
def test_only_the_first_process_writes_the_log(story):
  run, told = story

  assert {p.name for p in run.iterdir()} == {
    *("checkpoints", "config.json", "metrics.jsonl")
  }
  copies = list((run.parents[1] / "tmp-stopped").glob("mmjax-*"))
  assert not copies  # Each process took its own away.
