"""How much a linear classifier finds in frozen features."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core.interfaces import Predict
from mmjax.evaluators import features


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe:
  """Logistic regression on pooled features, fitted on `train_data`.

  Features are standardised by the training set's mean and deviation; the
  penalty is `l2` / 2 times the squared weights, the loss a mean over
  examples. Fitted to convergence by L-BFGS, as in CLIP (Radford et al. 2021,
  appendix A.3).
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  train_batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  num_classes: int
  modality: str = "image"
  label: str = "label"  # Field with the class index.
  l2: float = 0.01
  max_steps: int = 500  # Of L-BFGS.

  def reads(self):
    fields = (self.modality, self.label)
    return {"batches": fields, "train_batches": fields}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    x, labels = features.collect(
      self.train_batches(), self._pool, self.label, predict, params
    )
    mean, deviation = x.mean(axis=0), x.std(axis=0) + 1e-6
    x = (x - mean) / deviation
    weights, bias = fit(
      x, labels, self.num_classes, l2=self.l2, max_steps=self.max_steps
    )
    yield "train_top1", _accuracy(x @ weights + bias, labels)
    x, labels = features.collect(
      self.batches(), self._pool, self.label, predict, params
    )
    yield "top1", _accuracy((x - mean) / deviation @ weights + bias, labels)

  def _pool(self, apply, batch):
    del batch
    return apply("pool", self.modality)


def fit(
  x: Float[np.ndarray, "b d"],
  labels: Int[np.ndarray, " b"],
  num_classes: int,
  *,
  l2: float,
  max_steps: int,
) -> tuple[Float[np.ndarray, "d v"], Float[np.ndarray, " v"]]:
  """Minimises mean cross-entropy + l2 / 2 |weights|^2; returns both."""
  from scipy import optimize, special

  b, d = x.shape
  targets = np.eye(num_classes)[labels]  # b v

  def loss(flat):
    weights, bias = flat[: d * num_classes].reshape(d, -1), flat[-num_classes:]
    logits = x @ weights + bias
    log_probs = special.log_softmax(logits, axis=1)
    value = -np.sum(targets * log_probs) / b + l2 / 2 * np.sum(weights**2)
    error = (np.exp(log_probs) - targets) / b
    gradient = x.T @ error + l2 * weights
    return value, np.concatenate([gradient.reshape(-1), error.sum(axis=0)])

  best = optimize.minimize(
    loss,
    np.zeros((d + 1) * num_classes),
    jac=True,
    method="L-BFGS-B",
    options={"maxiter": max_steps},
  ).x
  return best[: d * num_classes].reshape(d, -1), best[-num_classes:]


def _accuracy(logits, labels):
  return float(np.mean(logits.argmax(axis=1) == labels))
