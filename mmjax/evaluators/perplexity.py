"""Perplexity of language-model objectives."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.interfaces import Objective, Predict
from mmjax.evaluators.loss import Loss


@dataclasses.dataclass(frozen=True, kw_only=True)
class Perplexity:
  """e to the mean loss of a token: among how many a model wavers.

  `<objective>` is over all tokens of the split that count, however batched.
  Without `only`, of all objectives that predict a text word by word; one
  whose loss is a mean over tokens otherwise (masked_lm) can be named.

    c.evaluators = dict(
      perplexity=dict(name="perplexity", data=dict(split="test"))
    )

  Raises:
    UserError: an unknown objective, or none that predicts a text.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  objectives: Mapping[str, Objective]
  only: tuple[str, ...] = ()  # Names of objectives.

  def __post_init__(self):
    for name in self.only:
      if name not in self.objectives:
        raise errors.unknown("objective of this run", name, self.objectives)
    if not self.names:
      raise errors.UserError(
        "No objective of this run predicts a text word by word, as "
        "'causal_lm' and 'captioning' do; name those to measure in `only`. "
        f"There are {sorted(self.objectives)}."
      )

  @property
  def names(self) -> tuple[str, ...]:
    """The objectives that are measured."""
    return self.only or tuple(
      name
      for name, objective in self.objectives.items()
      if getattr(objective, "decoding", None) is not None
    )

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    for name, value in self._loss.run(predict, params):
      objective, _, metric = name.rpartition("/")
      if metric == "loss":
        # Beyond e^700 there are no floats.
        yield objective, math.exp(min(value, 700.0))

  @functools.cached_property
  def _loss(self) -> Loss:
    # One object for all runs: what it asks the model is then compiled once.
    return Loss(
      batches=self.batches,
      objectives=self.objectives,
      chance={},
      only=self.names,
    )
