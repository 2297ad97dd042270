"""The GPU suite on a machine that has JAX and little else."""

import subprocess
import sys

import pytest

# Of what mmjax is installed with, all that timing a step does without.
ABSENT = (
  "array_record",
  "chex",
  "cloudpickle",
  "fsspec",
  "grain",
  "importlib_resources",
  "jinja2",
  "pyarrow",
  "soundfile",
  "soxr",
  "tensorboardX",
  "tensorflow_datasets",
)
PROGRAM = f"""
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
  def find_spec(self, name, path, target=None):
    if name.partition(".")[0] in {ABSENT}:
      raise ImportError(name)

sys.meta_path.insert(0, Absent())
from absl import flags
from mmjax.bench import suite_gpu
from mmjax.build import experiment

flags.FLAGS.mark_as_parsed()
for model in (suite_gpu.MODELS[0], *suite_gpu.MODELS[3:]):
  made = experiment.prepare(suite_gpu._load(model.config, 2))
  for pipeline in made.parts.pipelines.values():
    assert pipeline.example(0, 0, 0, train=True)
print("prepared")
"""


@pytest.mark.slow
def test_its_steps_are_built_without_data_libraries():
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False
  )
  assert done.stdout.strip().endswith("prepared"), done.stderr
