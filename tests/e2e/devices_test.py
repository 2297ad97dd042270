"""The same config on 1 and on 8 devices."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.build import initial, settings
from mmjax.build.experiment import prepare
from mmjax.core import config as config_lib
from mmjax.data import loader
from mmjax.sharding import partition

TINY = Path(__file__).with_name("tiny.py")
NUM_STEPS = 20
MESHES = {
  "data": dict(data=8, rules="data_parallel"),
  "fsdp": dict(data=1, fsdp=8, rules="fsdp"),
  "fsdp_tensor": dict(data=2, fsdp=2, tensor=2, rules="fsdp_tensor"),
}


def make(mesh, devices):
  config = config_lib.load(f"{TINY}:pretrain")
  config.mesh = mesh
  config.train.num_steps = NUM_STEPS
  return prepare(settings.resolve(config), devices)


def train(experiment):
  state, _ = initial.initial_state(experiment.config, experiment)
  batches = {
    task: loader.train_batches(p, batch_size=8, seed=0, num_threads=0)
    for task, p in experiment.parts.pipelines.items()
  }
  losses = []
  for _ in range(NUM_STEPS):
    batch = experiment.put({k: next(v) for k, v in batches.items()})
    state, metrics = experiment.run_step(state, batch)
    losses.append(
      {k: float(v.mean) for k, v in metrics.items() if k.endswith("loss")}
    )
  return losses, experiment.step_fn


@pytest.fixture(scope="module")
def on_one_device():
  return train(make(dict(data=1), jax.devices()[:1]))[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", MESHES)
def test_losses_are_those_of_one_device(on_one_device, name):
  losses, _ = train(make(MESHES[name], jax.devices()))
  for step, (got, expected) in enumerate(
    zip(losses, on_one_device, strict=True)
  ):
    for key, value in expected.items():
      np.testing.assert_allclose(
        got[key], value, rtol=1e-5, err_msg=f"{key} at step {step}"
      )


@pytest.mark.slow
def test_losses_fall_and_differ_between_steps(on_one_device):
  first, last = on_one_device[0]["loss"], on_one_device[-1]["loss"]
  assert last < first
  assert len({row["loss"] for row in on_one_device}) == NUM_STEPS


def test_fsdp_leaves_nothing_large_replicated():
  config = config_lib.load(f"{TINY}:pretrain")
  # Wide enough that matrices pass 1 MiB.
  for encoder in config.model.encoders.values():
    encoder.size.update(dict(embed_dim=512, mlp_dim=2048))
  config.mesh = MESHES["fsdp"]
  experiment = prepare(settings.resolve(config))
  rows = partition.report(
    experiment.abstract_state.params, experiment.shardings.params
  )
  large = [row for row in rows if row["bytes"] > 2**20]
  assert len(large) >= 2
  for row in large:
    assert row["bytes_per_device"] == row["bytes"] // 8, row
  moments = {
    name: leaf.sharding
    for name, leaf in jax.tree_util.tree_leaves_with_path(
      experiment.abstract_state.opt_state
    )
    if leaf.size * 4 > 2**20
  }
  assert moments
  assert all(not s.is_fully_replicated for s in moments.values())
