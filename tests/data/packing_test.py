import itertools

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import packing


def _by_hand(sizes, capacity):
  """First fit over all rows, said plainly."""
  rows = []
  for item, size in enumerate(sizes):
    for row in rows:
      if all(
        sum(sizes[i][axis] for i in row) + size[axis] <= capacity[axis]
        for axis in range(len(capacity))
      ):
        row.append(item)
        break
    else:
      rows.append([item])
  return [tuple(row) for row in rows]


@pytest.fixture
def sizes(rng):
  tokens, pictures = rng.integers(1, 11, 200), rng.integers(0, 3, 200)
  return list(zip(tokens.tolist(), pictures.tolist(), strict=True))


def test_each_goes_into_the_first_row_with_room(sizes):
  rows = packing.first_fit(sizes, (20, 3), open_rows=200)
  assert rows == _by_hand(sizes, (20, 3))


def test_with_few_rows_open_nothing_is_lost_or_too_full(sizes):
  rows = packing.first_fit(sizes, (20, 3), open_rows=4)
  assert sorted(itertools.chain(*rows)) == list(range(200))
  for row in rows:
    total = np.sum([sizes[i] for i in row], axis=0)
    assert (total <= (20, 3)).all()
  # Room that is left in old rows is not found again, so it takes more rows.
  assert len(_by_hand(sizes, (20, 3))) < len(rows) < 200


def test_what_has_no_size_or_is_too_large_stands_alone():
  sizes = [(3,), None, (9,), (2,), None]
  assert packing.first_fit(sizes, (5,)) == [(0, 3), (1,), (2,), (4,)]


class _Numbers:
  def __init__(self, broken=ValueError):
    self._broken = broken

  def __len__(self):
    return 5

  def __getitem__(self, index):
    if index == 2:
      raise self._broken("no number")
    return {"number": index, "id": f"n{index}"}


def test_a_row_holds_its_examples_and_a_broken_one_stands_alone():
  packed = packing.Packed(_Numbers(), lambda e: (e["number"],), (4,), "numbers")
  assert packed.rows == [(0, 1, 3), (2,), (4,)]
  assert len(packed) == 3
  row = packed[0]
  assert [e["number"] for e in row["numbers"]] == [0, 1, 3]
  assert row["id"] == "n0+n1+n3"
  with pytest.raises(ValueError, match="no number"):
    packed[1]


def test_a_wrong_config_stops_at_once():
  with pytest.raises(errors.UserError):
    packing.Packed(
      _Numbers(errors.UserError), lambda e: (len(e),), (9,), "numbers"
    )
