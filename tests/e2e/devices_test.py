"""The same config on 1, 2, 4 and 8 devices, by every table of rules."""

import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from mmjax.build import initial, settings
from mmjax.build.experiment import prepare
from mmjax.build.generation import Generator
from mmjax.core import config as config_lib
from mmjax.core import trees
from mmjax.data import loader
from mmjax.generate.settings import GenerationSettings
from mmjax.sharding import partition

TINY = Path(__file__).with_name("tiny.py")
NUM_STEPS = 20
# Each table of rules, each mesh axis, on 2, 4 and 8 devices.
MESHES = {
  "data": {n: dict(data=n) for n in (2, 4, 8)},
  "fsdp": {n: dict(fsdp=n, rules="fsdp") for n in (2, 4, 8)},
  "hybrid": {n: dict(replica=2, fsdp=n // 2, rules="fsdp") for n in (4, 8)},
  "fsdp_expert": {
    n: dict(fsdp=n // 2, tensor=2, rules="fsdp_expert") for n in (2, 4, 8)
  },
  "fsdp_tensor": {
    2: dict(tensor=2, rules="fsdp_tensor"),
    4: dict(fsdp=2, tensor=2, rules="fsdp_tensor"),
    8: dict(data=2, fsdp=2, tensor=2, rules="fsdp_tensor"),
  },
  "sequence": {
    2: dict(sequence=2, rules="fsdp"),
    4: dict(sequence=4, rules="fsdp"),
    8: dict(fsdp=2, tensor=2, sequence=2, rules="fsdp_tensor"),
  },
}
few = pytest.mark.skipif(
  "MMJAX_ALL_MESHES" not in os.environ,
  reason="8 devices find what 2 and 4 do; MMJAX_ALL_MESHES=1 runs all",
)
CASES = [
  pytest.param(name, n, marks=() if n == 8 else few)
  for name, sizes in MESHES.items()
  for n in sizes
]


def pretrain():
  """Masked words, codes of hidden patches, contrast; multiway fusion."""
  config = config_lib.load(f"{TINY}:pretrain")
  config.model.fusion.multiway = True
  return config


def adapt():
  """Captioning by adapters on a frozen model."""
  config = config_lib.load(f"{TINY}:finetune")
  size = config.model.encoders.image.size
  del config.data.label
  config.data.text = dict(max_tokens=12)
  config.model.decoders = dict(text=dict(name="text", size=size.to_dict()))
  config.tasks = dict(main=dict(objectives=dict(say=dict(name="captioning"))))
  config.finetune = dict(
    lora=dict(rank=2, targets=(".*(attention|mlp)/.*",)),
    trainable=("heads_lm/.*",),
  )
  return config


def make(config, mesh, devices):
  config.mesh = {**dict(data=1), **mesh}
  config.train.num_steps = NUM_STEPS
  return prepare(settings.resolve(config), devices)


def train(experiment):
  """Losses of all steps, by name, and the state after them."""
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
  return losses, state


def check_same(losses, expected):
  for step, (got, want) in enumerate(zip(losses, expected, strict=True)):
    for key, value in want.items():
      np.testing.assert_allclose(
        got[key], value, rtol=1e-5, err_msg=f"{key} at step {step}"
      )


def say(experiment, state):
  """Tokens of the first captions."""
  source = experiment.parts.pipelines["main"]
  batch = next(loader.eval_batches(source, batch_size=8, num_threads=0))
  generate = Generator(experiment, GenerationSettings(max_tokens=6))
  return generate.tokens(state.variables, batch)


@pytest.fixture(scope="module")
def pretrained_on_one():
  return train(make(pretrain(), {}, jax.devices()[:1]))[0]


@pytest.fixture(scope="module")
def adapted_on_one():
  experiment = make(adapt(), {}, jax.devices()[:1])
  losses, state = train(experiment)
  return losses, say(experiment, state)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), CASES)
def test_pretraining_is_that_of_one_device(pretrained_on_one, name, count):
  experiment = make(pretrain(), MESHES[name][count], jax.devices()[:count])
  check_same(train(experiment)[0], pretrained_on_one)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "count"), CASES)
def test_adapting_and_generating_are_those_of_one_device(
  adapted_on_one, name, count
):
  experiment = make(adapt(), MESHES[name][count], jax.devices()[:count])
  losses, state = train(experiment)
  expected, said = adapted_on_one
  check_same(losses, expected)
  assert say(experiment, state) == said


@pytest.mark.slow
def test_losses_fall_and_differ_between_steps(pretrained_on_one):
  first, last = pretrained_on_one[0]["loss"], pretrained_on_one[-1]["loss"]
  assert last < first
  assert len({row["loss"] for row in pretrained_on_one}) == NUM_STEPS


def test_fsdp_leaves_nothing_large_replicated():
  config = config_lib.load(f"{TINY}:pretrain")
  # Wide enough that matrices pass 1 MiB.
  for encoder in config.model.encoders.values():
    encoder.size.update(dict(embed_dim=512, mlp_dim=2048))
  config.mesh = dict(data=1, fsdp=8, rules="fsdp")
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


@pytest.mark.slow
def test_logits_of_a_split_vocabulary_are_not_gathered():
  config = pretrain()
  config.model.visual_tokenizer.num_codes = 1024
  experiment = make(
    config, dict(data=4, tensor=2, rules="fsdp_tensor"), jax.devices()
  )
  info = experiment.parts.info
  specs = trees.flatten(experiment.shardings.params)
  for head in ("mlm", "vtp"):
    assert specs[f"heads_{head}/logits/kernel"].spec[-1] == "tensor"
  text = experiment.lower_step().compile().as_text()
  moved = re.findall(
    r"= (.*?) (?:all-gather|all-to-all|all-reduce|collective-permute)"
    r"(?:-start)?\(",
    text,
  )
  assert len(moved) > 10
  for size in (info.vocab_size, info.vocab_size // 2, 1024, 512):
    # A gradient of a kernel has the width of the stream too.
    logits = [m for m in moved if re.search(rf"\[\d+(,\d+)*,{size}\]", m)]
    assert all(re.search(rf"\[16,{size}\]", m) for m in logits), logits
