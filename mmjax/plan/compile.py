"""Compiles the step of a run for a topology, and gathers what it costs."""

import contextlib
import dataclasses
import functools
import hashlib
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections as mlc

from mmjax.build import experiment as experiment_lib
from mmjax.build import remat, settings
from mmjax.core import precision
from mmjax.plan import collectives as collectives_lib
from mmjax.plan import hlo
from mmjax.plan import memory as memory_lib
from mmjax.plan import roofline as roofline_lib
from mmjax.plan.topologies import Topology
from mmjax.sharding import partition


@dataclasses.dataclass(frozen=True)
class Plan:
  """What a config would cost on a topology."""

  topology: Topology
  mesh: Mapping[str, int]
  rules: str
  batch_size: int  # Examples a step.
  precision: str
  remat: Mapping[str, str]  # Policy by stack.
  num_params: int
  model_flops: float  # Of a step, all chips; nothing counts twice.
  state_bytes: Mapping[str, float]  # Of one chip, by kind: before compiling.
  lower_secs: float
  compile_secs: float
  program: str  # Hash of the step before it is compiled.
  # Why it does not fit: bytes wanted and available. The rest is empty then.
  missing: Mapping[str, float] | None = None
  memory: memory_lib.Memory | None = None
  collectives: tuple[collectives_lib.Collective, ...] = ()
  roofline: roofline_lib.Roofline | None = (
    None  # None: nothing known of the chip.
  )

  @property
  def chips(self) -> int:
    """Number of chips, of all slices."""
    return len(self.topology.devices)

  @property
  def spare_bytes(self) -> float:
    """Memory of a chip that is left; less than zero: does not fit."""
    if self.memory is None:
      missing = self.missing or {}
      return missing.get("available", 0.0) - missing.get("wanted", math.inf)
    if not self.topology.usable_bytes:
      return math.inf
    return self.topology.usable_bytes - self.memory.total

  @property
  def fits(self) -> bool:
    """Whether the compiler found room, or by formula there is."""
    if self.memory is not None and self.topology.platform == "tpu":
      return True
    return self.spare_bytes >= 0

  @property
  def step_secs(self) -> float:
    """By the roofline; NaN if there is none."""
    return self.roofline.secs if self.roofline else math.nan

  @property
  def examples_per_sec(self) -> float:
    """Of all chips."""
    return self.batch_size / self.step_secs

  @property
  def mfu(self) -> float:
    """By the roofline; NaN if there is none."""
    chip = self.topology.chip
    if self.roofline is None or chip is None:
      return math.nan
    return roofline_lib.mfu(self.model_flops, self.step_secs, self.chips, chip)


def lower(
  config: mlc.ConfigDict, topology: Topology
) -> tuple[experiment_lib.Experiment, Any]:
  """The step that `mmjax train` would run there, lowered.

  `precision="auto"` is what it would be there, not here.

  Raises:
    UserError: as `experiment.prepare`.
  """
  config = mlc.ConfigDict(config.to_dict())
  if config.model.precision == "auto":
    config.model.precision = precision.fastest(topology.platform)
  for stack in experiment_lib.stacks(config).values():
    stack.attention = "xla"  # A kernel of this host's GPU is none of theirs.
  made = experiment_lib.prepare(config, topology.devices)
  return made, made.lower_step()


def plan(config: mlc.ConfigDict, topology: Topology) -> Plan:
  """Compiles a resolved config's step and reads its costs.

  Of stacks with `remat="auto"`, the first policy that fits there, or the last.

  Raises:
    UserError: as `experiment.prepare`.
  """
  if remat.AUTO not in experiment_lib.remat_policies(config).values():
    return _plan(config, topology)
  for policy in remat.ORDER:
    chosen = experiment_lib.with_remat(config, policy, only=remat.AUTO)
    found = _plan(chosen, topology)
    if found.fits:
      break
  return found


def _plan(config, topology):
  start = time.monotonic()
  made, lowered = lower(config, topology)
  lower_secs = time.monotonic() - start
  batches = _placed(made)
  text = lowered.as_text()
  known = Plan(
    topology=topology,
    mesh=dict(made.mesh.shape),
    rules=made.config.mesh.rules,
    batch_size=made.batch_size,
    precision=made.config.model.precision,
    remat=experiment_lib.remat_policies(made.config),
    num_params=made.num_params()[0],
    model_flops=made.flops_per_example * made.batch_size,
    state_bytes={
      "parameters": memory_lib.shard_bytes(made.abstract_state.params),
      "optimizer": memory_lib.shard_bytes(made.abstract_state.opt_state),
      "batch": memory_lib.shard_bytes(batches),
    },
    lower_secs=lower_secs,
    compile_secs=0.0,
    program=hashlib.sha256(text.encode()).hexdigest(),
  )
  start = time.monotonic()
  try:
    with _no_cache(topology):
      compiled = lowered.compile()
  except jax.errors.JaxRuntimeError as e:
    missing = memory_lib.missing(str(e))
    if missing is None:
      raise
    secs = time.monotonic() - start
    return dataclasses.replace(known, missing=missing, compile_secs=secs)
  known = dataclasses.replace(known, compile_secs=time.monotonic() - start)
  return _read(known, made, compiled, batches)


def _read(known, made, compiled, batches):
  """Fills in what the compiled program says."""
  topology, devices = known.topology, list(made.mesh.devices.flat)
  places = {device: i for i, device in enumerate(topology.devices)}
  module = hlo.parse(compiled.as_text())
  found = collectives_lib.find(
    module, known.mesh, lambda i: topology.slice_of(places[devices[i]])
  )
  estimate = None
  if topology.chip is not None:

    @functools.cache
    def rate(group, network):
      members = [devices[i] for i in group]
      return roofline_lib.collective_rate(
        topology.chip, members, topology.devices, network
      )

    estimate = roofline_lib.of(
      module, found, topology.chip, lambda c: rate(c.group, c.network)
    )
  return dataclasses.replace(
    known,
    memory=memory_lib.of(compiled, made.abstract_state, batches, module),
    collectives=tuple(found),
    roofline=estimate,
  )


def _placed(made):
  """The abstract batches, as they are split."""
  sharding = partition.batch_sharding(made.mesh)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    made.abstract_batches(),
  )


@contextlib.contextmanager
def _no_cache(topology):
  """A program for hardware that is not there cannot be read back."""
  before = jax.config.jax_enable_compilation_cache
  here = not topology.chip
  jax.config.update("jax_enable_compilation_cache", before and here)
  try:
    yield
  finally:
    jax.config.update("jax_enable_compilation_cache", before)


def scaled(config: mlc.ConfigDict, ways: float) -> mlc.ConfigDict:
  """The config with so many times the batch, for weak scaling."""
  config = mlc.ConfigDict(config.to_dict())
  size = settings.settings(config, "train").batch_size * ways
  config.train.batch_size = max(1, round(size))
  return config
