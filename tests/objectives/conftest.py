"""Losses by hand: float64, loops over examples; and a model that is a table."""

import types

import numpy as np
import pytest


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


@pytest.fixture(scope="session")
def by_hand():
  return types.SimpleNamespace(cross_entropy=_cross_entropy, info_nce=_info_nce)


class Table:
  """An `Apply` that looks results up, and remembers what it was asked for.

  A result is found by the call's method, its names and the view. A head that
  is asked with arrays gets them through a function.
  """

  def __init__(self, results):
    self._results = results
    self.calls = []

  def __call__(self, method, *args, view="clean"):
    names = tuple(a for a in args if isinstance(a, str | tuple))
    arrays = [a for a in args if not isinstance(a, str | tuple)]
    self.calls.append((method, *names, view))
    result = self._results[method, *names, view]
    return result(*arrays) if callable(result) else result


@pytest.fixture(scope="session")
def table():
  return Table
