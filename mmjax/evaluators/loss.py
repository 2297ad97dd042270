"""Held-out loss of each objective, beside its chance level."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from mmjax.core import errors
from mmjax.core.interfaces import LossTerm, Objective, Predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
  """Runs the objectives on held-out data, with nothing random but the masks.

  `<objective>/loss` and the objective's own metrics are means over all that
  counts, however it is batched; `<objective>/below_chance` is by how many
  nats the loss is below that of a model that knows nothing.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  objectives: Mapping[str, Objective]
  chance: Mapping[str, float | None]
  only: tuple[str, ...] = ()  # Names of objectives; () = all.

  def __post_init__(self):
    for name in self.only:
      if name not in self.objectives:
        raise errors.unknown("objective of this run", name, self.objectives)

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    sums: dict[str, LossTerm] | None = None
    for batch in self.batches():
      terms = predict(params, self._terms, batch)
      add = terms if sums is None else jax.tree.map(np.add, sums, terms)
      sums = add
    for name, term in (sums or {}).items():
      if float(term.weight) == 0.0:
        continue
      value = float(term.total) / float(term.weight)
      yield name, value
      objective, _, metric = name.rpartition("/")
      chance = self.chance.get(objective)
      if metric == "loss" and chance is not None:
        yield f"{objective}/below_chance", chance - value

  def _terms(self, apply, batch):
    terms = {}
    for name, objective in self.objectives.items():
      if self.only and name not in self.only:
        continue
      term, metrics = objective(
        apply, batch, rng=jax.random.key(0), train=False
      )
      terms[f"{name}/loss"] = term
      terms |= {f"{name}/{metric}": value for metric, value in metrics.items()}
    return terms
