import logging
import os
import signal
import subprocess
import sys
import textwrap

import pytest

from mmjax.train import leftovers, manifest

URL = "gs://bucket/run"
HOLD = """
  import sys, time
  from pathlib import Path
  from mmjax.train import leftovers, manifest

  with leftovers.owned(sys.argv[1]) as base:
    step = base / "bucket" / "run" / "checkpoints" / sys.argv[2]
    step.mkdir(parents=True)
    (step / "numbers").write_text("1")
    manifest.write(step)
    print(base, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holding(tmp_path, monkeypatch):
  """`holding(url, step)`: a process that has such a folder, and its path."""
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  started = []

  def hold(url=URL, step=3):
    process = subprocess.Popen(
      [sys.executable, "-c", textwrap.dedent(HOLD), url, str(step)],
      env={**os.environ, "TMPDIR": str(tmp_path)},
      stdout=subprocess.PIPE,
      text=True,
    )
    started.append(process)
    return process, process.stdout.readline().strip()

  yield hold
  for process in started:
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_a_killed_process_left_is_cleared_away(holding, tmp_path):
  process, base = holding(step=3)
  leftovers.clear(URL, newest=3)
  assert os.path.isdir(base)  # It lives.

  process.send_signal(signal.SIGKILL)
  process.wait()
  leftovers.clear("gs://bucket/other", newest=3)
  assert os.path.isdir(base)
  leftovers.clear(URL, newest=3)
  assert not list(tmp_path.iterdir())


def test_a_step_that_was_not_uploaded_is_kept_and_named(holding, caplog):
  process, base = holding(step=6)
  process.kill()
  process.wait()

  with caplog.at_level(logging.WARNING):
    leftovers.clear(URL, newest=3)
  assert os.path.isdir(base)
  assert f"{base} has step 6 of {URL}" in caplog.text

  leftovers.clear(URL, newest=6)
  assert not os.path.isdir(base)


def test_a_step_that_is_not_whole_counts_for_nothing(holding):
  process, base = holding(step=6)
  process.kill()
  process.wait()
  os.remove(f"{base}/bucket/run/checkpoints/6/{manifest.FILE}")

  leftovers.clear(URL, newest=3)
  assert not os.path.isdir(base)


def test_what_is_to_be_kept_stays(tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  with leftovers.owned(URL) as base:
    leftovers.keep(base)
  other = tmp_path / "mmjax-of-somebody"
  other.mkdir()

  leftovers.clear(URL, newest=3)
  assert set(tmp_path.iterdir()) == {base, other}


def test_a_folder_whose_owner_is_this_process_is_used(tmp_path, monkeypatch):
  monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
  with leftovers.owned(URL) as base:
    leftovers.clear(URL, newest=3)
    assert base.is_dir()
  leftovers.clear(URL, newest=3)
  assert not base.exists()
