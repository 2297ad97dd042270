"""How much a few examples of each class say, on frozen features."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors
from mmjax.core.interfaces import Predict
from mmjax.evaluators import features


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot:
  """Ridge regression to the classes from a few examples of each, solved.

  For each of `shots`, that many examples of `train_data` are drawn for each
  class (all, if it has fewer), `num_draws` times; `<n>_shot/top1` is the mean
  over draws and `<n>_shot/deviation` their standard deviation. As in the few-
  shot evaluation of ViT (Dosovitskiy et al. 2021, arXiv:2010.11929, 4.1),
  features are standardised and classes are targets of a least-squares fit;
  the penalty is `l2` times the squared weights beside a mean over examples.

    c.evaluators = dict(
      few=dict(
        name="few_shot",
        data=dict(split="test", label=dict(field="group")),
        train_data=dict(split="train", label=dict(field="group")),
        shots=(1, 5, 10),
      )
    )

  Raises:
    UserError: no shots, no draws, or a penalty that is not positive.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  train_batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  num_classes: int
  modality: str = "image"
  features: str = "pooled"  # Or "shared": after the projection.
  label: str = "label"  # Field with the class index.
  shots: tuple[int, ...] = (1, 5, 10)  # Examples of each class.
  num_draws: int = 3
  l2: float = 0.1
  seed: int = 0

  def __post_init__(self):
    features.check_kind(self.features)
    if not self.shots or min(self.shots) < 1 or self.num_draws < 1:
      raise errors.UserError(
        f"shots={self.shots}, num_draws={self.num_draws}, expected at least "
        "one of each, and 1 or more."
      )
    if not self.l2 > 0:
      raise errors.UserError(f"l2={self.l2}, expected > 0.")

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
    for shots in self.shots:
      found = []
      for draw in range(self.num_draws):
        rng = np.random.default_rng((self.seed, shots, draw))
        rows = pick(classes, shots, rng)
        scores = ridge(
          known[rows],
          classes[rows],
          x,
          num_classes=self.num_classes,
          l2=self.l2,
        )
        found.append(np.mean(scores.argmax(axis=1) == labels))
      yield f"{shots}_shot/top1", float(np.mean(found))
      yield f"{shots}_shot/deviation", float(np.std(found))

  def _encode(self, apply, batch):
    del batch
    return apply(features.METHODS[self.features], self.modality)


def pick(
  classes: Int[np.ndarray, " n"], shots: int, rng: np.random.Generator
) -> Int[np.ndarray, " m"]:
  """Rows of `shots` examples of each class that there is, or of all it has."""
  shuffled = rng.permutation(len(classes))
  rows = [
    shuffled[classes[shuffled] == label][:shots] for label in np.unique(classes)
  ]
  return np.concatenate(rows)


def ridge(
  x: Float[np.ndarray, "n d"],
  classes: Int[np.ndarray, " n"],
  queries: Float[np.ndarray, "b d"],
  *,
  num_classes: int,
  l2: float,
) -> Float[np.ndarray, "b v"]:
  """Scores of queries: mean squared error + l2 |weights|^2 is least.

  The bias has no penalty: features and targets are centred instead.
  """
  mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
  x, queries = (x - mean) / deviation, (queries - mean) / deviation
  targets = np.eye(num_classes)[classes]  # n v
  bias = targets.mean(axis=0)
  n, d = x.shape
  if n < d:  # As many equations as examples.
    inner = np.linalg.solve(x @ x.T + n * l2 * np.eye(n), targets - bias)
    return queries @ (x.T @ inner) + bias
  covariance = x.T @ x + n * l2 * np.eye(d)
  return queries @ np.linalg.solve(covariance, x.T @ (targets - bias)) + bias
