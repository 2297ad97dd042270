"""Two processes compare texts, and read an array of which each has a part."""

import socket
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax
port, index = sys.argv[1:]
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(f"localhost:{port}", 2, int(index))

import numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from mmjax.build import tokenizer_ids
from mmjax.core import errors
from mmjax.distributed import agreement
from mmjax.sharding import mesh
from mmjax.train import state

fsdp = mesh.make_mesh(mesh.MeshShape(data=1, fsdp=4))
x = np.arange(32.0, dtype=np.float32).reshape(8, 4)
def made(x):
  return state.TrainState(
    step=0, params={"tokenizer": {"x": x}}, opt_state=(), collections={},
    ema=None, rng=None,
  )
ids = [tokenizer_ids.of_part(made(x), "tokenizer")]
for spec in (P(), P("fsdp"), P(None, "fsdp")):
  split = jax.make_array_from_callback(
    x.shape, NamedSharding(fsdp, spec), x.__getitem__
  )
  ids.append(tokenizer_ids.of_part(made(split), "tokenizer"))
print("ids", len(ids), len(set(ids)))
print("texts", agreement.gather("é" * (3 + int(index))))
try:
  agreement.check({"a": {"b": int(index)}}, ["first", "second"])
except errors.UserError as e:
  print("differs", str(e).splitlines()[1].strip())
agreement.check({"a": 1}, ["first", "second"])
"""


@pytest.mark.slow
def test_both_processes_see_what_each_has():
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
  for (out, error), process in zip(done, processes, strict=True):
    assert process.returncode == 0, error
    lines = out.splitlines()
    assert "ids 4 1" in lines
    assert "texts ['ééé', 'éééé']" in lines
    assert "differs a.b: 0 in first, 1 in second" in lines
