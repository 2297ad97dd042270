import dataclasses
import hashlib
import math
import re

import jax
import pytest

from mmjax.build import experiment, training
from mmjax.core import errors
from mmjax.plan import compile as compile_lib
from mmjax.plan import roofline, sweep, tables, topologies
from mmjax.train import predict
from tests.plan.topologies_test import needs_libtpu


def one_step(config):
  config.mesh = dict(fsdp=2, rules="fsdp")
  config.train.num_steps = 1
  config.optimizer.warmup_steps = 0


@pytest.fixture(scope="module")
def config(resolve):
  return resolve("tokenizer", one_step)


@pytest.fixture(scope="module")
def plan(config):
  return compile_lib.plan(config, topologies.topology("cpu:8"))


def test_memory_is_that_of_the_real_step(config, plan):
  stats = experiment.prepare(config).lower_step().compile().memory_analysis()

  given = math.fsum(
    [
      plan.memory.parameters,
      plan.memory.optimizer,
      plan.memory.other_state,
      plan.memory.batch,
      plan.memory.padding,
    ]
  )
  assert given == stats.argument_size_in_bytes
  assert (
    plan.memory.activations + plan.memory.temporaries
    == stats.temp_size_in_bytes
  )
  assert plan.memory.total == (
    stats.argument_size_in_bytes
    + stats.temp_size_in_bytes
    + stats.output_size_in_bytes
    - stats.alias_size_in_bytes
    + stats.generated_code_size_in_bytes
  )


def test_kinds_of_memory_are_those_of_the_arrays(config, plan):
  made = experiment.prepare(config)
  shapes = jax.tree.leaves(made.abstract_state.params)

  per_chip = sum(
    math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize
    for x in shapes
  )
  assert plan.memory.parameters == per_chip
  # Adam has two numbers of each trained parameter, and counts steps.
  assert plan.memory.optimizer == pytest.approx(2 * per_chip, rel=0.01)
  assert plan.memory.batch == 32 * 32 * 3  # A picture of bytes for each.


def test_training_runs_the_planned_program(config, plan, monkeypatch, tmp_path):
  texts = []
  real = experiment.Experiment.run_step

  def watched(self, state, batches):
    with predict.placement(self.mesh, self.rules):
      texts.append(self.step_fn.lower(state, batches).as_text())
    return real(self, state, batches)

  monkeypatch.setattr(experiment.Experiment, "run_step", watched)
  training.Run(config, tmp_path).execute()

  ran = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
  assert ran == [plan.program]


def test_collectives_of_fsdp_lie_along_its_axis(plan):
  kinds = {
    (row["kind"], row["axes"]) for row in tables.by_kind(plan.collectives)
  }

  assert ("all-gather", ("fsdp",)) in kinds
  assert not any("tensor" in axes for _, axes in kinds)


def test_a_chip_is_given_its_share_of_the_batch(resolve):
  def edit(config):
    config.train.batch_size = 12

  with pytest.raises(errors.UserError, match="multiple of 8, e.g. 8 or 16"):
    compile_lib.plan(resolve("tokenizer", edit), topologies.topology("cpu:8"))


def test_weak_scaling_keeps_the_batch_of_a_chip(config):
  assert compile_lib.scaled(config, 0.5).train.batch_size == 4
  assert config.train.batch_size == 8


def test_auto_precision_is_that_of_the_hardware(resolve):
  def edit(config):
    config.model.precision = "auto"

  made, _ = compile_lib.lower(
    resolve("tokenizer", edit), topologies.topology("h100:1")
  )

  assert made.config.model.precision == "bfloat16"


def test_a_sweep_ranks_what_fits_and_says_why_others_do_not(
  config, plan, monkeypatch
):
  """With made-up plans: a batch of 16 does not fit, and fsdp=2 is faster."""
  chip = topologies.CHIPS["h100"]
  asked = []

  def planned(config, topology):
    fsdp, batch = config.mesh.fsdp, config.train.batch_size
    asked.append((fsdp, config.mesh.rules, batch))
    if fsdp == 3:
      raise errors.UserError("The mesh takes a multiple of 3 devices.")
    time = roofline.Part("", 1.0, 1.0, 1.0 / fsdp, 0.0, 1.0 / fsdp, 0.0, 0.0)
    usable = plan.memory.total * 2 if batch < 16 else 1.0
    return dataclasses.replace(
      plan,
      topology=dataclasses.replace(topology, chip=chip, usable_bytes=usable),
      roofline=roofline.Roofline((time,)),
      batch_size=batch,
    )

  monkeypatch.setattr(compile_lib, "plan", planned)
  grid = sweep.Grid((1, 2, 3), (1,), ("none",), (32, 16, 8))
  outcomes = list(sweep.run(config, plan.topology, grid))

  assert asked == [
    (1, "data_parallel", 8),
    (1, "data_parallel", 16),
    (2, "fsdp", 8),
    (2, "fsdp", 16),
    (3, "fsdp", 8),
    (3, "fsdp", 16),
    (3, "fsdp", 32),
  ]
  best = sweep.ranked(outcomes)
  assert [(o.candidate.fsdp, o.candidate.batch_size) for o in best] == [
    (2, 8),
    (1, 8),
  ]
  refused = {o.candidate: o.refused for o in outcomes if o.refused}
  assert refused[sweep.Candidate(1, 1, "none", 32)] == (
    "a smaller batch does not fit"
  )
  assert "multiple of 3" in refused[sweep.Candidate(3, 1, "none", 8)]
  verdicts = [tables.verdict(o.plan) for o in outcomes if o.plan]
  assert verdicts[1].startswith("does not fit, by 0.0")


@needs_libtpu
def test_the_step_for_tpus_is_that_of_as_many_devices_here(config):
  """As traced: how jax lowers random bits differs between platforms."""

  def traced(name):
    made, _ = compile_lib.lower(config, topologies.topology(name))
    with predict.placement(made.mesh, made.rules):
      step = made.step_fn.trace(made.abstract_state, made.abstract_batches())
    return re.sub(r"0x[0-9a-f]+|device_kind=[^)]*", "", str(step.jaxpr))

  assert traced("v5e:2x4") == traced("cpu:8")
