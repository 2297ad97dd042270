"""Classification by the nearest neighbours of frozen features."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors
from mmjax.core.interfaces import Predict
from mmjax.evaluators import features, ranking
from mmjax.evaluators.scores import ranked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Knn:
  """The `k` nearest of `train_data` vote, by cosine; nothing is fitted.

  Source: Wu et al. 2018 (arXiv:1805.01978), 3.4: a vote weighs
  exp(cosine / temperature).

    c.evaluators = dict(
      knn=dict(
        name="knn",
        data=dict(split="test", label=dict(field="group")),
        train_data=dict(split="train", label=dict(field="group")),
      )
    )

  Raises:
    UserError: unknown features, or nobody votes.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  train_batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  num_classes: int
  modality: str = "image"
  features: str = "pooled"  # Or "shared": after the projection.
  label: str = "label"  # Field with the class index.
  k: int = 20
  temperature: float = 0.07
  top_k: tuple[int, ...] = (1, 5)

  def __post_init__(self):
    features.check_kind(self.features)
    if self.k < 1 or not self.temperature > 0:
      raise errors.UserError(
        f"k={self.k}, temperature={self.temperature}, expected k of 1 or more "
        "and a temperature above 0."
      )

  def reads(self):
    fields = (self.modality, self.label)
    return {"batches": fields, "train_batches": fields}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    known, classes = features.collect(
      self.train_batches(), self._encode, self.label, predict, params
    )
    x, labels = features.collect(
      self.batches(), self._encode, self.label, predict, params
    )
    votes = self._votes(features.unit(x), features.unit(known), classes)
    for k in self.top_k:
      if k < self.num_classes:
        yield f"top{k}", ranked.top_k(votes, labels, k)

  def _votes(
    self,
    x: Float[np.ndarray, "b d"],
    known: Float[np.ndarray, "n d"],
    classes: Int[np.ndarray, " n"],
  ) -> Float[np.ndarray, "b v"]:
    k = min(self.k, len(known))
    votes = np.zeros((len(x), self.num_classes))
    for part in features.chunks(len(x), ranking.CHUNK):
      cosines = x[part] @ known.T  # q n
      nearest = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
      near = np.take_along_axis(cosines, nearest, axis=1)
      # Less the highest, lest a low temperature overflow.
      weights = np.exp((near - near.max(axis=1)[:, None]) / self.temperature)
      rows = np.arange(len(cosines))[:, None]
      np.add.at(votes[part], (rows, classes[nearest]), weights)
    return votes

  def _encode(self, apply, batch):
    del batch
    return apply(features.METHODS[self.features], self.modality)
