"""Tries an objective: does it keep to the contract that training counts on?

The objective runs on the tiny model and the random batch of `specimen.py`.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from mmjax.build import model as model_lib
from mmjax.build import settings as settings_lib
from mmjax.build import specimen
from mmjax.build.plug_in import plug_in
from mmjax.core import errors, trees
from mmjax.core.batch import modality_fields
from mmjax.objectives import OBJECTIVES
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.objectives.multitask import WeightedObjective
from mmjax.sharding import mesh as mesh_lib
from mmjax.sharding import partition, rules
from mmjax.train import model_call, predict
from mmjax.train import variables as variables_lib

EXACT = 1e-5  # Relative: sums in another order.
BFLOAT16 = 0.03  # Relative: 8 bits of mantissa, a few layers.
CHANCE = 0.05  # Relative.
METHODS = ("__call__", "fields", "heads", "chance")


@dataclasses.dataclass(frozen=True)
class Finding:
  """One line of the table."""

  check: str
  passed: bool | None  # None = does not apply.
  detail: str


class Trial:
  """An objective with a model, parameters and a batch.

  Raises:
    UserError: no such objective, or one that cannot be made.
  """

  def __init__(
    self,
    name: str,
    options: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
  ):
    section = {"name": name, **(options or {})}
    self.objective = plug_in(
      "objective", "objective", section, OBJECTIVES, specimen.CLASSES
    )
    missing = [m for m in METHODS if not callable(_get(self.objective, m))]
    if missing:
      raise errors.UserError(
        f"{name!r} is not an objective: it lacks {missing}. It has to have "
        f"{list(METHODS)}, see `mmjax.core.interfaces.Objective`."
      )
    self.objectives = {"it": WeightedObjective("main", self.objective)}
    self._sections = {**specimen.NEEDS.get(name, {}), **(model or {})}
    config = settings_lib.resolve(specimen.config(self._sections))
    self.model, self.info = self._assemble(config)
    rng = np.random.default_rng(0)
    self.specs = dict(self.objective.fields(self.info))
    self.batch = specimen.batch(self.specs, rng)
    variables = jax.jit(self._fresh)(self.batch)
    self.fresh = jax.device_get(variables.pop("params"))
    # Heads start at zero: as they are, nothing would depend on anything.
    self.params = jax.tree.map(
      lambda x: x + 0.1 * rng.normal(size=x.shape).astype(x.dtype), self.fresh
    )
    self.collections = variables
    frozen = tuple(
      f"{part}/.*" for part in getattr(self.objective, "needs_frozen", ())
    )
    self._runs: dict[Any, Callable[[Any], Any]] = {}
    self.trainable = {
      path: not any(trees.compile_pattern(p).fullmatch(path) for p in frozen)
      for path in trees.flatten(self.params)
    }

  def _fresh(self, batch):
    # The visual tokenizer wants to see a picture, whatever the objective.
    pictures = specimen.batch(
      modality_fields("image"), np.random.default_rng(0)
    )
    pictures = jax.tree.map(jnp.asarray, pictures)
    batches = {"main": batch, "pictures": pictures}
    return nn.meta.unbox(
      variables_lib.initialize(
        self.model, self.objectives, batches, jax.random.key(0)
      )
    )

  def _assemble(self, config):
    return model_lib.assemble(
      config,
      specimen.FACTS,
      {"it": self.objective},
      teacher=settings_lib.resolve(specimen.config()),
    )

  def half(self) -> nn.Module:
    """The model in bfloat16."""
    config = settings_lib.resolve(specimen.config(self._sections))
    config.model.precision = "bfloat16"
    return self._assemble(config)[0]

  def loss(
    self,
    batch: Mapping[str, Any] | None = None,
    *,
    fresh: bool = False,
    train: bool = False,
    devices: int = 1,
  ) -> tuple[float, float, Any]:
    """Total and weight of the loss, and the gradient of the mean.

    With `fresh` parameters, or with some that have moved on.
    """
    key = train, devices
    if key not in self._runs:
      self._runs[key] = self._compile(train, devices)
    params = self.fresh if fresh else self.params
    values, grads = self._runs[key](params, batch or self.batch)
    return float(values.total), float(values.weight), grads

  def _forward(self, model, train):
    """What gives the mean of the loss, and its total and weight."""

    def forward(trained, frozen, collections, batch):
      variables = {"params": trees.merge(trained, frozen), **collections}
      call = model_call.ModelCall(
        model, variables, jax.random.key(1), train=train
      )
      term, _ = self.objective(
        ForwardOnce(call, batch, train=train),
        batch,
        rng=jax.random.key(2),
        train=train,
      )
      return term.mean.astype(jnp.float32), term

    return forward

  def half_loss(self) -> float:
    """Total of the loss in bfloat16."""
    forward = jax.jit(self._forward(self.half(), train=False))
    with predict.placement(_mesh(1), rules.rules("data_parallel")):
      _, term = forward(self.params, {}, self.collections, self.batch)
    return float(term.total)

  def _compile(self, train, devices):
    mesh = _mesh(devices)
    gradient = jax.jit(
      jax.value_and_grad(self._forward(self.model, train), has_aux=True),
      out_shardings=partition.replicated(mesh),
    )

    def run(params, batch):
      trained, frozen = trees.split(params, self.trainable)
      everywhere = partition.replicated(mesh)
      placed = jax.device_put((trained, frozen, self.collections), everywhere)
      with predict.placement(mesh, rules.rules("data_parallel")):
        (_, term), grads = gradient(*placed, partition.put_batch(batch, mesh))
      return jax.device_get((term, grads))

    return run


def _mesh(devices):
  return mesh_lib.make_mesh(
    mesh_lib.MeshShape(data=devices), jax.devices()[:devices]
  )


def _get(thing, name):
  return getattr(thing, name, None)


def check_objective(
  name: str,
  options: Mapping[str, Any] | None = None,
  model: Mapping[str, Any] | None = None,
) -> list[Finding]:
  """Runs all checks.

  Args:
    name: of the registry, or an address `"module:Class"`.
    options: fields of the objective.
    model: sections of the tiny model that differ from `specimen.config`.

  Raises:
    UserError: no such objective, or one that cannot be made.
  """
  trial = Trial(name, options, model)
  return [
    Finding(check, *check_fn(trial)) for check, check_fn in CHECKS.items()
  ]


def _finite(trial):
  total, weight, grads = trial.loss(train=True)
  bad = [n for n, g in trees.flatten(grads).items() if not np.isfinite(g).all()]
  good = math.isfinite(total) and weight > 0 and not bad
  norm = _norm(grads)
  return good and norm > 0, (
    f"loss {total / max(weight, 1e-30):.4g}, gradient norm {norm:.3g}"
    + (f", not finite: {bad[:3]}" if bad else "")
  )


def _chance(trial):
  declared = trial.objective.chance(trial.info, specimen.BATCH_SIZE)
  if declared is None:
    return None, "none declared"
  batch = dict(trial.batch, **_all_count(trial))
  total, weight, _ = trial.loss(batch, fresh=True)
  measured = total / weight
  return _close(measured, declared, CHANCE), (
    f"declared {declared:.4g}, measured {measured:.4g}"
  )


def _all_count(trial):
  """So that a batch has as many examples as `chance` is told of."""
  return {
    name: np.ones_like(value)
    for name, value in trial.batch.items()
    if name == "example_mask" or name.endswith("_present")
  }


def _nothing_counts(trial):
  nothing = np.zeros_like(trial.batch["example_mask"])
  total, weight, grads = trial.loss({**trial.batch, "example_mask": nothing})
  norm = _norm(grads)
  return total == 0 and weight == 0 and norm == 0, (
    f"total {total:.3g}, weight {weight:g}, gradient norm {norm:.3g}"
  )


def _order(trial):
  order = np.random.default_rng(1).permutation(specimen.BATCH_SIZE)
  return _same(trial, {k: v[order] for k, v in trial.batch.items()})


def _ignored(trial):
  return _same(trial, specimen.junk(trial.batch, np.random.default_rng(2)))


def _same(trial, batch, **how):
  """Whether another batch or another way give the same loss and gradient."""
  total, weight, grads = trial.loss()
  total_2, weight_2, grads_2 = trial.loss(batch, **how)
  norm = _norm(grads)
  distance = _norm(jax.tree.map(lambda a, b: a - b, grads, grads_2))
  close = (
    _close(total, total_2, EXACT)
    and _close(weight, weight_2, EXACT)
    and distance <= 10 * EXACT * max(norm, EXACT)
  )
  return close, (
    f"loss {_share(total, total_2):.1e}, gradient "
    f"{distance / max(norm, 1e-30):.1e} apart"
  )


def _devices(trial):
  count = specimen.BATCH_SIZE
  if len(jax.devices()) < count:
    return None, f"{len(jax.devices())} devices here"
  return _same(trial, trial.batch, devices=count)


def _half(trial):
  total, weight, _ = trial.loss()
  other = trial.half_loss()
  return _close(total, other, BFLOAT16), (
    f"{total / weight:.4g} and {other / weight:.4g}"
  )


CHECKS: Mapping[str, Callable[[Trial], tuple[bool | None, str]]] = {
  "loss and gradient are finite": _finite,
  "first loss is the declared chance level": _chance,
  "a batch of fillers gives zero": _nothing_counts,
  "the order of the batch changes nothing": _order,
  "what does not count changes nothing": _ignored,
  "8 devices give the same as 1": _devices,
  "bfloat16 gives nearly the same": _half,
}


def _norm(tree) -> float:
  squares = [np.sum(np.square(x, dtype=float)) for x in jax.tree.leaves(tree)]
  return math.sqrt(sum(squares))


def _share(a: float, b: float) -> float:
  return abs(a - b) / max(abs(a), abs(b), 1e-30)


def _close(a: float, b: float, tolerance: float) -> bool:
  return a == b or _share(a, b) <= tolerance


def describe(findings: Sequence[Finding]) -> str:
  """The findings as a table."""
  words = {True: "ok", False: "FAILED", None: "-"}
  width = max(len(f.check) for f in findings)
  return "\n".join(
    f"  {f.check:{width}}  {words[f.passed]:6}  {f.detail}" for f in findings
  )
