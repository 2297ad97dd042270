"""Features of frozen encoders, for what is fitted on top of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors
from mmjax.core.interfaces import Predict

# How the model is asked for them: after the projection, or before.
METHODS = {"shared": "project", "pooled": "pool"}


def check_kind(kind: str) -> None:
  """Raises `UserError` for unknown features."""
  if kind not in METHODS:
    raise errors.unknown("features", kind, METHODS)


def collect(
  batches: Iterable[Mapping[str, np.ndarray]],
  encode: Callable[..., Any],
  label: str,
  predict: Predict,
  params: Any,
) -> tuple[Float[np.ndarray, "b d"], Int[np.ndarray, " b"]]:
  """Features and classes of all real examples.

  Args:
    batches: a pass over a split.
    encode: function for `predict` that gives one vector per example.
    label: field with the class index.
    predict: runs it.
    params: all variables.

  Raises:
    UserError: labels that are not one class per example.
  """
  rows: list[np.ndarray] = []
  labels: list[np.ndarray] = []
  for batch in batches:
    real = batch["example_mask"]
    if batch[label].ndim != 1:
      raise errors.UserError(
        f"The field {label!r} holds a share of each class; this evaluator "
        "needs one class per example: set data.label.multi_label=False."
      )
    rows.append(predict(params, encode, batch)[real])
    labels.append(batch[label][real])
  return np.concatenate(rows).astype(np.float64), np.concatenate(labels)


def unit(x: Float[np.ndarray, "b d"]) -> Float[np.ndarray, "b d"]:
  """Rows of length 1; 0 stays 0."""
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def chunks(count: int, size: int) -> Iterator[slice]:
  """Slices of up to `size` rows that cover `count` rows."""
  for start in range(0, count, size):
    yield slice(start, start + size)
