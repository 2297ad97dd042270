"""A whole run leaves TensorFlow alone, TFDS source and all."""

import subprocess
import sys
from pathlib import Path

import pytest

TINY = Path(__file__).with_name("tiny.py")
CODE = """
import sys
from mmjax.cli import main

status = main.main(sys.argv[1:])
names = "tensorflow_datasets", "tensorflow"
print("status", status, [name in sys.modules for name in names])
"""


@pytest.mark.slow
def test_a_run_on_the_starter_set_imports_no_tensorflow(tmp_path, starter_path):
  done = subprocess.run(
    [
      sys.executable,
      "-c",
      CODE,
      "train",
      f"--config={TINY}:finetune,evaluated",
      f"--workdir={tmp_path}",
      "--config.data.source=starter_emoji",
      f"--config.data.path={starter_path}",
      "--config.evaluators.shapes.data.split=unseen_artist[:16]",
      "--config.train.num_steps=2",
      "--config.optimizer.warmup_steps=1",
    ],
    capture_output=True,
    text=True,
    timeout=300,
  )

  assert "status 0 [True, False]" in done.stdout, done.stdout + done.stderr
