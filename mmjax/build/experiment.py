"""A config made ready to run: placed, compiled on demand, not yet started."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections as mlc
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from mmjax.build import batching as batching_lib
from mmjax.build import finetuning
from mmjax.build import parts as parts_lib
from mmjax.build import settings as settings_lib
from mmjax.core import errors, trees
from mmjax.models.layers import options
from mmjax.sharding import mesh as mesh_lib
from mmjax.sharding import partition, rules
from mmjax.train import (
  flops,
  grad_cache,
  predict,
  state,
  step,
)
from mmjax.train import variables as variables_lib


@dataclasses.dataclass(frozen=True)
class Experiment:
  """Everything that a run needs but its state and its data position."""

  config: mlc.ConfigDict
  parts: parts_lib.Parts
  mesh: Mesh
  rules: rules.Rules
  train_step: step.TrainStep
  trainable: Mapping[str, bool]  # By parameter name.
  abstract_state: Any  # Shapes with shardings.
  batch_size: int  # Of evaluators, and of training without `batching`.
  batching: batching_lib.Batching
  init_fn: Any  # Key -> fresh variables, boxed; jitted and traced already.

  @property
  def shardings(self) -> Any:
    """Where each array of the state lives."""
    return jax.tree.map(lambda x: x.sharding, self.abstract_state)

  @functools.cached_property
  def step_fn(self) -> Any:
    """The jitted step; it donates its state."""
    batch = partition.batch_sharding(self.mesh)
    everywhere = partition.replicated(self.mesh)
    return jax.jit(
      self.train_step,
      in_shardings=(self.shardings, batch),
      out_shardings=(self.shardings, everywhere),
      donate_argnums=0,
    )

  def run_step(self, state: Any, batches: Any) -> tuple[Any, Any]:
    """One step, with names resolved to this mesh."""
    with predict.placement(self.mesh, self.rules):
      return self.step_fn(state, batches)

  def lower_step(self) -> Any:
    """The step, lowered for the abstract state and batch."""
    with predict.placement(self.mesh, self.rules):
      return self.step_fn.lower(self.abstract_state, self.abstract_batches())

  @functools.cached_property
  def conflict_fn(self) -> Any:
    """Measures how gradients lie to each other; takes what the step takes."""
    batch = partition.batch_sharding(self.mesh)
    return jax.jit(
      self.train_step.conflict,
      in_shardings=(self.shardings, batch),
      out_shardings=partition.replicated(self.mesh),
    )

  def run_conflict(self, state: Any, batches: Any) -> Any:
    """Metrics of `TrainStep.conflict`; the state stays."""
    with predict.placement(self.mesh, self.rules):
      return self.conflict_fn(state, batches)

  def abstract_batches(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes of the batches, by task and field."""
    return _abstract_batches(self.parts, self.batch_size)

  def put(self, batches: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Places this process's rows of each task's batch."""
    return {
      task: partition.put_batch(
        {k: v for k, v in batch.items() if k in self.parts.fields[task]},
        self.mesh,
      )
      for task, batch in batches.items()
    }

  @functools.cached_property
  def predictor(self) -> predict.Predictor:
    """Runs functions of the model for evaluators."""
    fields = frozenset(f for specs in self.parts.fields.values() for f in specs)
    return predict.Predictor(self.parts.model, self.mesh, self.rules, fields)

  def chance(self) -> dict[str, float | None]:
    """The loss in nats of a model that knows nothing, by objective."""
    return {
      name: item.objective.chance(self.parts.info, self.batch_size)
      for name, item in self.parts.objectives.items()
    }

  def num_params(self) -> tuple[int, int]:
    """Number of parameters, and of those that are trained."""
    trained, _ = trees.split(self.abstract_state.params, self.trainable)
    return (
      trees.num_params(self.abstract_state.params),
      trees.num_params(trained),
    )

  @functools.cached_property
  def flops_of_steps(self) -> dict[tuple[str, ...], float]:
    """Of a training step, by its tasks; computed again does not count."""
    batches = self.abstract_batches()
    return {
      tasks: self._count_flops({task: batches[task] for task in tasks})
      for tasks in self.parts.mixture.choices
    }

  def _count_flops(self, batches):
    counted = self._counted_step
    if counted is not self.train_step or self.mesh.size > 1:
      return flops.count_flops(counted, self.abstract_state, batches)
    # Of one device the step itself can be counted: its first call then finds
    # its trace, which takes seconds. Of several, a trace has what each does.
    sharding = partition.batch_sharding(self.mesh)
    placed = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
      batches,
    )
    with predict.placement(self.mesh, self.rules):
      return flops.count_flops(self.step_fn, self.abstract_state, placed)

  def flops_of(self, tasks: tuple[tuple[str, int], ...]) -> float:
    """Of a training step, by its tasks and the bucket of each."""
    shapes = self.batching.shapes(dict(tasks))
    names = tuple(task for task, _ in tasks)
    full = self.abstract_batches()
    if shapes == {task: full[task] for task in names}:
      return self.flops_of_steps[names]
    if tasks not in self._flops:
      self._flops[tasks] = self._count_flops(shapes)
    return self._flops[tasks]

  @functools.cached_property
  def _flops(self) -> dict[tuple[tuple[str, int], ...], float]:
    return {}

  @functools.cached_property
  def _counted_step(self) -> step.TrainStep:
    """The step without what is computed again."""
    train_step = self.train_step
    if train_step.accumulate > 1:
      train_step = dataclasses.replace(train_step, accumulate=1)
    if set(remat_policies(self.config).values()) - {"none"}:
      config = with_remat(self.config, "none")
      train_step = dataclasses.replace(
        train_step, model=parts_lib.make_parts(config).model
      )
    return train_step

  @property
  def flops_per_example(self) -> float:
    """Of a training step, the mean over all steps of the run."""
    num_steps = settings_lib.settings(self.config, "train").num_steps
    counts = self.parts.mixture.counts(num_steps)
    total = sum(
      count * counts[tasks[0]] for tasks, count in self.flops_of_steps.items()
    )
    return total / num_steps / self.batch_size


def prepare(
  config: mlc.ConfigDict, devices: Sequence[jax.Device] | None = None
) -> Experiment:
  """Makes an experiment from a resolved config, without touching a device.

  Args:
    config: see `settings.resolve`.
    devices: to arrange as the mesh; None = all.

  Raises:
    UserError: parts that don't exist or don't fit, a batch that does not
      divide over the devices, patterns that match nothing.
  """
  train = settings_lib.settings(config, "train")
  mesh_settings = settings_lib.settings(config, "mesh")
  mesh = mesh_lib.make_mesh(mesh_settings.shape, devices)
  table = rules.rules(mesh_settings.rules, mesh_settings.changes)
  rules.check_used(table, mesh.shape)
  mesh_lib.check_batch_size(train.batch_size, train.accumulate, mesh)
  parts = parts_lib.make_parts(config)
  _check_accumulation(parts, train.accumulate)
  batching = batching_lib.make_batching(train, parts.pipelines, mesh)

  init_fn = jax.jit(
    functools.partial(init_variables, parts=parts, batch_size=train.batch_size)
  )
  boxed = jax.eval_shape(init_fn, jax.random.key(0))
  params = nn.meta.unbox(boxed["params"])
  trainable = finetuning.trainable_mask(config, params)
  _check_frozen(parts, trainable)
  trained = [n for n, is_trained in trainable.items() if is_trained]
  trees.match(parts.weighting.shared, trained, what="trained parameters")
  opt_settings = settings_lib.settings(config, "optimizer")
  _check_average(parts, opt_settings.ema_decay)
  opt = finetuning.make_optimizer(config, params, trainable)

  abstract = jax.eval_shape(
    lambda v, rng: state.create(
      v,
      optimizer=opt,
      trainable=trainable,
      ema=bool(opt_settings.ema_decay),
      rng=rng,
    ),
    nn.meta.unbox(boxed),
    jax.random.key(0),
  )
  specs = partition.param_specs(boxed["params"], mesh, table)
  shardings = partition.state_shardings(abstract, specs, mesh)
  abstract = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    abstract,
    shardings,
  )
  train_step = step.TrainStep(
    parts.model,
    parts.objectives,
    opt,
    trainable,
    train.accumulate,
    opt_settings.ema_decay,
    parts.weighting,
  )
  return Experiment(
    config,
    parts,
    mesh,
    table,
    train_step,
    trainable,
    abstract,
    train.batch_size,
    batching,
    init_fn,
  )


def init_variables(
  rng: jax.Array, *, parts: parts_lib.Parts, batch_size: int
) -> dict[str, Any]:
  """Fresh variables of the model, boxed with logical axes."""
  batches = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), _abstract_batches(parts, batch_size)
  )
  return variables_lib.initialize(
    parts.model, parts.objectives, batches, rng, parts.weighting
  )


def _abstract_batches(parts, batch_size):
  return {
    task: {
      name: jax.ShapeDtypeStruct((batch_size, *spec.shape), spec.dtype)
      for name, spec in specs.items()
    }
    for task, specs in parts.fields.items()
  }


def _check_accumulation(parts, accumulate):
  if accumulate == 1:
    return
  for name, item in parts.objectives.items():
    objective = item.objective
    if grad_cache.couples(objective) and not grad_cache.can_cache(objective):
      raise errors.UserError(
        f"The objective {name!r} couples the examples of a batch, so "
        f"train.accumulate={accumulate} micro-batches are not one large "
        "batch. Set train.accumulate=1, or accept fewer negatives (of "
        "'matching': candidates='micro_batch'), or give an objective of your "
        "own what core.interfaces.CoupledObjective asks for."
      )


def _check_average(parts, ema_decay):
  for name, item in parts.objectives.items():
    if getattr(item.objective, "needs_ema", False) and not ema_decay:
      raise errors.UserError(
        f"The objective {name!r} learns from the moving average of the "
        "parameters, which this run does not keep: set optimizer.ema_decay, "
        "e.g. to 0.996."
      )


def _check_frozen(parts, trainable):
  for name, item in parts.objectives.items():
    for part in getattr(item.objective, "needs_frozen", ()):
      starts = (f"{part}/",)
      if part == "visual_tokenizer":  # Those of other modalities too.
        starts = (*starts, "tokenizers_")
      loose = [n for n, t in trainable.items() if t and n.startswith(starts)]
      if loose:
        raise errors.UserError(
          f"The objective {name!r} needs a frozen {part}, but {len(loose)} "
          f"of its parameters would be trained, e.g. {loose[0]!r}. Add "
          f"'{part}/.*' to finetune.frozen."
        )


def with_remat(
  config: mlc.ConfigDict, policy: str, only: str = ""
) -> mlc.ConfigDict:
  """A config whose stacks compute again what `policy` says.

  Args:
    config: resolved.
    policy: of `options.REMAT_POLICIES`.
    only: leaves the stacks alone that say another policy than this.

  Raises:
    UserError: unknown policy.
  """
  if policy not in options.REMAT_POLICIES:
    raise errors.unknown("remat policy", policy, options.REMAT_POLICIES)
  copy = mlc.ConfigDict(config.to_dict())
  for stack in stacks(copy).values():
    if not only or stack.remat == only:
      stack.remat = policy
  return copy


def remat_policies(config: mlc.ConfigDict) -> dict[str, str]:
  """What each stack computes again, by its name."""
  return {name: stack.remat for name, stack in stacks(config).items()}


def stacks(config: mlc.ConfigDict) -> dict[str, mlc.ConfigDict]:
  """The options of all stacks; parts of the user's own may have none."""
  model = config.model
  decoders = {f"{name} decoder": part for name, part in model.decoders.items()}
  parts = {**model.encoders, **decoders, "fusion": model.fusion}
  return {
    name: part.stack for name, part in parts.items() if part and "stack" in part
  }
