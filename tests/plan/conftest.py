"""A small program with each collective, compiled once for 8 CPU devices."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh
from jax.sharding import PartitionSpec as P

from mmjax.build import settings
from mmjax.core import config as config_lib
from mmjax.plan import hlo

TINY = Path(__file__).parents[1] / "e2e" / "tiny.py"
MESH = {"data": 2, "fsdp": 4}
TRIPS, WIDTH = 5, 64


@pytest.fixture(scope="session")
def resolve():
  """`resolve(stage, edit)`: a tiny config, changed and completed."""

  def run(stage, edit=lambda config: None):
    config = config_lib.load(f"{TINY}:{stage}")
    edit(config)
    return settings.resolve(config)

  return run


@pytest.fixture(scope="session")
def program():
  """Per chip and trip of `TRIPS`: a gather, a product, a sum, a scatter."""
  devices = np.asarray(jax.devices()[:8]).reshape(tuple(MESH.values()))
  mesh = Mesh(devices, tuple(MESH), axis_types=(AxisType.Auto,) * 2)

  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=(P("fsdp"), P(("data", "fsdp"))),
    out_specs=(P("fsdp"), P(("data", "fsdp"))),
    check_vma=False,
  )
  def step(kernel, x):
    def layer(carry, _):
      kernel, x = carry
      whole = jax.lax.all_gather(kernel, "fsdp", tiled=True)
      y = jnp.tanh(x @ whole)  # (WIDTH, WIDTH) on each chip.
      total = jax.lax.psum(y[:16], "data")
      mine = jax.lax.psum_scatter(y, "fsdp", tiled=True)
      turned = jax.lax.ppermute(y, "fsdp", [(i, (i + 1) % 4) for i in range(4)])
      split = jax.lax.all_to_all(turned, "data", 0, 0, tiled=True)
      return (mine, split.at[:16].add(total)), None

    return jax.lax.scan(layer, (kernel, x), length=TRIPS)[0]

  shapes = (
    jax.ShapeDtypeStruct((WIDTH, WIDTH), jnp.float32),
    jax.ShapeDtypeStruct((8 * WIDTH, WIDTH), jnp.float32),
  )
  return hlo.parse(jax.jit(step).lower(*shapes).compile().as_text())
