"""Losses by hand: float64, loops over examples; and a model that is a table."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core.sequence import Sequence


def _cross_entropy(logits, label):
  """Of one label."""
  logits = np.asarray(logits, np.float64)
  top = logits.max()
  return top + np.log(np.sum(np.exp(logits - top))) - logits[label]


def _info_nce(a, b, scale, mask):
  """Sum over the counted rows, both directions, one row at a time."""
  rows = np.flatnonzero(mask)
  a, b = np.asarray(a, np.float64)[rows], np.asarray(b, np.float64)[rows]
  total = 0.0
  for i in range(len(rows)):
    total += 0.5 * _cross_entropy([scale * a[i] @ c for c in b], i)
    total += 0.5 * _cross_entropy([scale * b[i] @ c for c in a], i)
  return total


@pytest.fixture
def spoken(rng):
  """Texts, their features behind one special token, and a head's matrix.

  The second text is padded, the third absent, the fourth in a filler example.
  """
  text = jnp.asarray([[1, 5, 6, 2], [1, 7, 2, 0], [1, 8, 8, 2], [1, 8, 8, 2]])
  batch = {
    "text": text,
    "text_mask": text > 0,
    "text_present": jnp.asarray([True, True, False, True]),
    "example_mask": jnp.asarray([True, True, True, False]),
  }
  x = jnp.asarray(rng.normal(size=(4, 1 + 4, 4)), jnp.float32)
  sequence = Sequence(x, jnp.ones((4, 5), bool), num_prefix=1, num_content=4)
  return batch, sequence, rng.normal(size=(4, 9)).astype(np.float32)


@pytest.fixture(scope="session")
def said_by_hand():
  """Losses and hits of the tokens of `spoken` that count, in order."""

  def run(batch, sequence, kernel):
    values, right = [], []
    for i, length in ((0, 4), (1, 3)):
      for j in range(1, length):
        # What stands one before says this token; the special one is skipped.
        logits = np.asarray(sequence.x[i, 1 + j - 1], np.float64) @ kernel
        label = int(batch["text"][i, j])
        values.append(_cross_entropy(logits, label))
        right.append(np.argmax(logits) == label)
    return values, right

  return run


@pytest.fixture(scope="session")
def by_hand():
  return types.SimpleNamespace(cross_entropy=_cross_entropy, info_nce=_info_nce)


class Table:
  """An `Apply` that looks results up, and remembers what it was asked for.

  A result is found by the call's method, its names and the view, and by who
  computes, if that is not the model. A head that is asked with arrays gets
  them through a function.
  """

  def __init__(self, results):
    self._results = results
    self.calls = []

  def __call__(self, method, *args, view="clean", by="model"):
    names = tuple(a for a in args if isinstance(a, str | tuple))
    arrays = [a for a in args if not isinstance(a, str | tuple)]
    call = (method, *names, view, *([] if by == "model" else [by]))
    self.calls.append(call)
    result = self._results[call]
    return result(*arrays) if callable(result) else result


@pytest.fixture(scope="session")
def table():
  return Table
