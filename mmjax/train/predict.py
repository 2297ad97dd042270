"""Runs a function of the model on host batches, for evaluators."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from mmjax.core.batch import Batch
from mmjax.core.interfaces import Apply
from mmjax.objectives.forward_once import ForwardOnce
from mmjax.sharding import partition
from mmjax.sharding.rules import Rules
from mmjax.train.model_call import ModelCall


@contextlib.contextmanager
def placement(mesh: Mesh, rules: Rules):
  """What tracing needs so that logical names become shardings.

  Without `set_mesh`, Linen's logical constraints silently do nothing.
  """
  with jax.set_mesh(mesh), nn.logical_axis_rules(rules):
    yield


class Predictor:
  """The `Predict` that evaluators get."""

  def __init__(
    self, model: nn.Module, mesh: Mesh, rules: Rules, fields: frozenset[str]
  ):
    self._model = model
    self._mesh = mesh
    self._rules = rules
    self._fields = fields | {"example_mask"}  # The rest stays on the host.
    self._compiled: dict[Callable[..., Any], Callable[..., Any]] = {}

  def __call__(
    self,
    params: Mapping[str, Any],
    fn: Callable[[Apply, Batch], Any],
    batch: Mapping[str, np.ndarray],
  ) -> Any:
    """Returns `fn(apply, batch)` as numpy; `params` are all variables.

    Of several processes, each calls it with the same whole batch.
    """
    if fn not in self._compiled:
      self._compiled[fn] = jax.jit(
        lambda variables, batch: self._run(fn, variables, batch),
        out_shardings=partition.replicated(self._mesh),
      )
    sent = {k: v for k, v in batch.items() if k in self._fields}
    placed = partition.put_global_batch(sent, self._mesh)
    with placement(self._mesh, self._rules):
      out = self._compiled[fn](params, placed)
    return jax.tree.map(np.asarray, out)

  def _run(self, fn, variables, batch):
    call = ModelCall(self._model, variables, jax.random.key(0), train=False)
    return fn(ForwardOnce(call, batch, train=False), batch)
