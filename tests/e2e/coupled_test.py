"""Objectives that compare the examples of a batch, on the tiny model."""

from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.build import initial, settings
from mmjax.build.experiment import prepare
from mmjax.core import config as config_lib
from mmjax.data import loader

TINY = Path(__file__).with_name("tiny.py")
NUM_STEPS = 2
MESHES = {
  1: dict(data=1),
  8: dict(data=2, fsdp=2, tensor=2, rules="fsdp_tensor"),
}


def make(num_devices):
  """Two micro-batches a step, compared as one batch, in tiles."""
  config = config_lib.load(f"{TINY}:pretrain")
  config.mesh = MESHES[num_devices]
  # In so many channels, random directions are at right angles.
  config.model.update(shared_dim=4096, visual_tokenizer={})
  config.finetune = {}
  config.train.update(batch_size=16, accumulate=2, num_steps=NUM_STEPS)
  objectives = dict(
    align=dict(name="contrastive", loss="sigmoid", chunk=1),
    match=dict(name="matching", candidates="micro_batch"),
  )
  config.tasks = dict(main=dict(objectives=objectives))
  return prepare(settings.resolve(config), jax.devices()[:num_devices])


def train(experiment):
  """Losses, accuracies and the norm of the gradient, by step."""
  state, _ = initial.initial_state(experiment.config, experiment)
  source = experiment.parts.pipelines["main"]
  batches = loader.train_batches(source, batch_size=16, seed=0, num_threads=0)
  rows = []
  for _ in range(NUM_STEPS):
    batch = experiment.put({"main": next(batches)})
    state, metrics = experiment.run_step(state, batch)
    rows.append({name: float(term.mean) for name, term in metrics.items()})
  return rows


@pytest.mark.slow
def test_coupled_objectives_start_at_chance_and_are_the_same_on_8_devices():
  made = make(1)
  expected = train(made)

  for name, chance in made.chance().items():
    loss = expected[0][f"{name}/loss"]
    assert loss == pytest.approx(chance, rel=0.05), name
  for step, row in enumerate(train(make(8))):
    assert row.keys() == expected[step].keys()
    for name, value in expected[step].items():
      np.testing.assert_allclose(
        row[name], value, rtol=2e-5, err_msg=f"{name} at step {step}"
      )
