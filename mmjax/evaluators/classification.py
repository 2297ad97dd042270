"""Held-out classification: top-k accuracy and the confusion matrix."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from mmjax.core.interfaces import Artifact, Predict


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Compares a head's highest logits with the labels.

  `majority` is the accuracy of always saying the most frequent class.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  class_names: tuple[str, ...]
  modality: str = "image"
  given: tuple[str, ...] = ()  # Modalities that it is fused with first.
  label: str = "label"  # Field with the class index.
  head: str = "label"
  top_k: tuple[int, ...] = (1, 5)

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    logits, labels = self._collect(predict, params)
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=1))
    picked = np.take_along_axis(log_probs, labels[:, None], axis=1)
    yield "loss", float(-picked.mean())
    # The rank of the right class; equal logits count against it.
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    rank = (logits >= own).sum(axis=1) - 1
    for k in self.top_k:
      if k < logits.shape[1]:
        yield f"top{k}", float(np.mean(rank < k))
    yield "majority", float(np.bincount(labels).max() / len(labels))

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    logits, labels = self._collect(predict, params)
    size = logits.shape[1]
    matrix = np.zeros((size, size), np.int64)
    np.add.at(matrix, (labels, logits.argmax(axis=1)), 1)
    names = list(self.class_names)
    yield Artifact(
      "confusion",
      "matrix",
      "Confusion",
      {"values": matrix, "row_names": names, "column_names": names},
      "Rows are the true classes, columns the predicted ones; numbers count "
      "held-out examples.",
    )

  def _collect(
    self, predict: Predict, params: Any
  ) -> tuple[Float[np.ndarray, "b v"], Int[np.ndarray, " b"]]:
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
