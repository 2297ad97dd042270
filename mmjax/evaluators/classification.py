"""Held-out classification: accuracy, calibration and the confusion matrix."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors
from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators.scores import calibration, ranked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Compares a head's highest logits with the labels.

  `majority` is the accuracy of always saying the most frequent class, `ece`
  the expected calibration error (`scores/calibration.py`).

  Where an example has any number of classes (`data.label.multi_label`),
  `mAP` is the mean average precision over the classes that there are, and
  `precision` and `recall` are of what has a probability above a half. A share
  of a class counts as having it from a half on.

    c.evaluators = dict(
      tags=dict(
        name="classification",
        data=dict(
          split="test", label=dict(field="tags", multi_label=True, names=NAMES)
        ),
      )
    )

  Raises:
    UserError: a negative number of bins.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  class_names: tuple[str, ...]
  modality: str = "image"
  given: tuple[str, ...] = ()  # Modalities that it is fused with first.
  label: str = "label"  # Field with the class index, or shares of classes.
  head: str = "label"
  top_k: tuple[int, ...] = (1, 5)
  num_bins: int = 15  # Of the calibration; 0 = it is not measured.

  def __post_init__(self):
    if self.num_bins < 0:
      raise errors.UserError(f"num_bins={self.num_bins}, expected 0 or more.")

  def reads(self):
    return {"batches": (self.modality, *self.given, self.label)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    logits, labels = self._collect(predict, params)
    if labels.ndim == 2:
      yield from _several(logits, labels)
      return
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=1))
    picked = np.take_along_axis(log_probs, labels[:, None], axis=1)
    yield "loss", float(-picked.mean())
    for k in self.top_k:
      if k < logits.shape[1]:
        yield f"top{k}", ranked.top_k(logits, labels, k)
    yield "majority", float(np.bincount(labels).max() / len(labels))
    if self.num_bins:
      yield "ece", self._reliability(logits, labels).error

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    logits, labels = self._collect(predict, params)
    if labels.ndim == 2:
      yield _precisions(logits, labels, self.class_names)
      return
    yield confusion(logits, labels, self.class_names)
    if self.num_bins:
      yield _reliability_bars(self._reliability(logits, labels))

  def _reliability(self, logits, labels):
    confidence = np.asarray(jax.nn.softmax(logits, axis=1)).max(axis=1)
    right = logits.argmax(axis=1) == labels
    return calibration.reliability(confidence, right, self.num_bins)

  def _collect(
    self, predict: Predict, params: Any
  ) -> tuple[
    Float[np.ndarray, "b v"],
    Int[np.ndarray, " b"] | Float[np.ndarray, "b v"],
  ]:
    logits, labels = [], []
    for batch in self.batches():
      real = batch["example_mask"]
      logits.append(predict(params, self._logits, batch)[real])
      labels.append(batch[self.label][real])
    return np.concatenate(logits), np.concatenate(labels)

  def _logits(self, apply, batch):
    del batch
    pooled = apply("pool", self.modality, *([self.given] if self.given else []))
    return apply("head", self.head, pooled)


def confusion(
  scores: Float[np.ndarray, "b v"],
  labels: Int[np.ndarray, " b"],
  class_names: tuple[str, ...],
) -> Artifact:
  """How often each class was taken for each other."""
  size = scores.shape[1]
  matrix = np.zeros((size, size), np.int64)
  np.add.at(matrix, (labels, scores.argmax(axis=1)), 1)
  names = list(class_names)
  return Artifact(
    "confusion",
    "matrix",
    "Confusion",
    {"values": matrix, "row_names": names, "column_names": names},
    "Rows are the true classes, columns the predicted ones; numbers count "
    "held-out examples.",
  )


def _several(logits, labels):
  logits = logits.astype(np.float64)
  yield "loss", float(np.mean(np.logaddexp(0.0, logits) - logits * labels))
  there, said = labels >= 0.5, logits > 0
  if there.any():
    yield "mAP", ranked.mean_average_precision(logits, there)[0]
    yield "recall", float(said[there].mean())
  if said.any():
    yield "precision", float(there[said].mean())


def _precisions(logits, labels, class_names):
  _, own = ranked.mean_average_precision(logits, labels >= 0.5)
  known = [i for i in np.argsort(-own, kind="stable") if not np.isnan(own[i])]
  return Artifact(
    "average_precision",
    "bars",
    "Average precision",
    {"names": [class_names[i] for i in known], "values": own[known]},
    "Of each class that a held-out example has, the best first.",
  )


def _reliability_bars(found):
  used = np.flatnonzero(found.counts)
  return Artifact(
    "reliability",
    "bars",
    "Reliability",
    {
      "names": [
        f"{found.confidence[i]:.2f} sure ({found.counts[i]:,} examples)"
        for i in used
      ],
      "values": found.accuracy[used],
    },
    "The share of right answers, by how sure the model was of them; a "
    f"calibrated model is as often right as sure. ECE {found.error:.3f}.",
  )
