"""A `Predict` without a model: calls of the model are looked up in a dict."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest


def _predict_with(**methods):
  """Makes a `Predict` whose model has these methods; each gets the batch."""

  def predict(params, fn, batch):
    del params
    # Like the real one: texts of the source stay on the host.
    sent = {
      name: jnp.asarray(value)
      for name, value in batch.items()
      if value.dtype != object
    }

    def apply(method, *args, view="clean"):
      return methods[method](sent, *args, view=view)

    return jax.tree.map(np.asarray, fn(apply, sent))

  return predict


def _batched(columns, size):
  """A function that yields batches, the last filled up as the loader does."""
  total = len(next(iter(columns.values())))

  def batches():
    for start in range(0, total, size):
      rows = np.minimum(np.arange(start, start + size), total - 1)
      batch = {name: values[rows] for name, values in columns.items()}
      batch["example_mask"] = np.arange(start, start + size) < total
      yield batch

  return batches


@pytest.fixture
def fake():
  return SimpleNamespace(predict_with=_predict_with, batched=_batched)


class _Letters:
  """A tokenizer whose token 5 + i is letter i."""

  content = np.arange(31) >= 5
  vocab_size = 31

  def token(self, token_id):
    return "<special>" if token_id < 5 else chr(ord("a") + int(token_id) - 5)

  def decode(self, ids):
    return "".join(self.token(i) for i in ids if i >= 5)


@pytest.fixture
def letters():
  return _Letters()
