"""Two processes evaluate one batch, each on half of the devices."""

import socket
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = """
import sys
import jax
port, index = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, int(index))

import numpy as np
from flax import linen as nn
from mmjax.sharding import mesh, rules
from mmjax.train import predict

class Model(nn.Module):
  def triple(self, x):
    return 3 * x

predictor = predict.Predictor(
  Model(),
  mesh.make_mesh(mesh.MeshShape(data=4)),
  rules.rules("data_parallel"),
  frozenset({"x"}),
)
x = np.arange(8.0, dtype=np.float32)
batch = {"x": x, "example_mask": x < 7}

def triple(apply, batch):
  return apply("triple", batch["x"]), batch["example_mask"]

out, mask = predictor({}, triple, batch)
print("result", jax.process_count(), out[mask].sum(), out.tolist())
"""


@pytest.mark.slow
def test_each_process_gets_the_results_of_the_whole_batch():
  with socket.socket() as free:
    free.bind(("localhost", 0))
    port = free.getsockname()[1]
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", PROGRAM, str(port), str(index)],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for index in range(2)
  ]
  try:
    done = [process.communicate(timeout=240) for process in processes]
  finally:
    for process in processes:
      process.kill()
  expected = 3 * np.arange(8.0)
  for (out, error), process in zip(done, processes, strict=True):
    assert process.returncode == 0, error
    (line,) = [x for x in out.splitlines() if x.startswith("result")]
    assert line == f"result 2 {expected[:7].sum()} {expected.tolist()}"
