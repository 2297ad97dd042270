"""What a checkpoint costs: the stall of training, the memory of a restore.

  python experiments/performance/checkpoint.py --millions=300

A state of AdamW (parameters and two moments, float32) on 4 fake devices along
`fsdp` is saved while steps go on, then restored in a new process onto a mesh
of 2 devices. Prints one JSON object: seconds that `save` held the loop, that
the write took, and by how much the restore's peak of resident memory exceeds
what the process had before, in parts of the state's bytes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "4")

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from mmjax.sharding import mesh as mesh_lib
from mmjax.train import checkpoint, state

LAYERS, WIDTH = 24, 1024  # Of matrices WIDTH x WIDTH.


def abstract_state(millions: float, devices: int):
  """Shapes and places of a state whose matrices are split over `fsdp`."""
  mesh = mesh_lib.make_mesh(
    mesh_lib.MeshShape(data=1, fsdp=devices), jax.devices()[:devices]
  )
  rows = int(millions * 1e6 / LAYERS / WIDTH)
  params = {
    f"layer_{i}": jax.ShapeDtypeStruct((WIDTH, rows), jnp.float32)
    for i in range(LAYERS)
  }
  made = jax.eval_shape(
    lambda p, k: state.create(
      {"params": p},
      optimizer=optax.adamw(1e-3),
      trainable=dict.fromkeys(params, True),
      ema=False,
      rng=k,
    ),
    params,
    jax.random.key(0),
  )
  split = NamedSharding(mesh, P("fsdp"))
  whole = NamedSharding(mesh, P())
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      x.shape, x.dtype, sharding=split if x.ndim == 2 else whole
    ),
    made,
  )


def save(folder: Path, millions: float) -> dict[str, float]:
  """Saves while steps go on that donate their state, as a run's do."""
  abstract = abstract_state(millions, 4)
  shardings = jax.tree.map(lambda x: x.sharding, abstract)

  def fresh():
    def fill(x):
      if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
      return jnp.full(x.shape, 0.5, x.dtype)

    return jax.tree.map(fill, abstract)

  current = jax.jit(fresh, out_shardings=shardings)()
  step = jax.jit(
    lambda s: s.replace(
      step=s.step + 1, params=jax.tree.map(lambda x: x * 0.999, s.params)
    ),
    donate_argnums=0,
    out_shardings=shardings,
  )
  current = jax.block_until_ready(step(current))
  saver = checkpoint.Checkpointer(folder)
  start = time.perf_counter()
  saver.save(1, current, {})
  stall = time.perf_counter() - start
  steps = 0
  while saver._pending and not saver._pending[1].done():
    current = jax.block_until_ready(step(current))
    steps += 1
  saver.close()
  write = time.perf_counter() - start
  size = sum(x.nbytes for x in jax.tree.leaves(current) if hasattr(x, "nbytes"))
  return {
    "state_gb": size / 1e9,
    "stall_secs": stall,
    "write_secs": write,
    "stall_share": stall / write,
    "steps_meanwhile": steps,
  }


def restore(folder: Path, millions: float) -> dict[str, float]:
  """Restores onto half of the devices; the peak is of this process."""
  abstract = abstract_state(millions, 2)
  size = sum(
    x.size * x.dtype.itemsize
    for x in jax.tree.leaves(abstract)
    if not jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
  )
  saver = checkpoint.Checkpointer(folder)
  before = memory_bytes("VmRSS")
  start = time.perf_counter()
  _, made, _ = saver.restore(abstract)
  jax.block_until_ready(made)
  return {
    "restore_secs": time.perf_counter() - start,
    "restore_peak_of_state": (memory_bytes("VmHWM") - before) / size,
  }


def memory_bytes(name: str) -> int:
  """VmRSS (now) or VmHWM (the most ever) of this process; of Linux.

  Not `getrusage`: a new process starts with its parent's peak there.
  """
  lines = Path("/proc/self/status").read_text().splitlines()
  (line,) = [x for x in lines if x.startswith(f"{name}:")]
  return int(line.split()[1]) * 1024


def main() -> None:
  """Saves, and restores in a process of its own."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--millions", type=float, default=300.0)
  parser.add_argument("--restore", default="")
  flags = parser.parse_args()
  if flags.restore:
    print(json.dumps(restore(Path(flags.restore), flags.millions)))
    return
  with tempfile.TemporaryDirectory() as folder:
    found = save(Path(folder) / "checkpoints", flags.millions)
    done = subprocess.run(
      [
        sys.executable,
        __file__,
        f"--millions={flags.millions}",
        f"--restore={folder}/checkpoints",
      ],
      capture_output=True,
      text=True,
      check=True,
    )
  found |= json.loads(done.stdout.strip().splitlines()[-1])
  print(json.dumps({k: round(v, 3) for k, v in found.items()}))


if __name__ == "__main__":
  main()
