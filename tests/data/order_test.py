import numpy as np
import pytest

from mmjax.data import order


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 65, 1000, 4097])
def test_each_epoch_holds_every_index_once(length):
  epochs, indices = order.shuffle(np.arange(3 * length), length, seed=5)
  np.testing.assert_array_equal(epochs, np.repeat([0, 1, 2], length))
  for epoch in range(3):
    found = np.sort(indices[epochs == epoch])
    np.testing.assert_array_equal(found, np.arange(length))


def test_order_depends_on_seed_and_epoch():
  def draw(seed, epoch):
    positions = np.arange(100) + 100 * epoch
    return order.shuffle(positions, 100, seed)[1].tolist()

  assert draw(0, 0) == draw(0, 0)
  orders = [draw(0, 0), draw(0, 1), draw(1, 0), draw(1, 1)]
  assert len({tuple(o) for o in orders}) == 4


def test_positions_can_be_asked_one_at_a_time():
  _, whole = order.shuffle(np.arange(50), 20, seed=3)
  alone = [order.shuffle(np.array([p]), 20, seed=3)[1][0] for p in range(50)]
  assert alone == whole.tolist()


@pytest.mark.parametrize("length", [10, 100])
def test_every_index_is_first_equally_often(length):
  epochs = 400 * length
  positions = np.arange(epochs) * length
  _, first = order.shuffle(positions, length, seed=0)
  times = np.bincount(first, minlength=length)
  # Chi-squared with length - 1 degrees of freedom: mean and 6 deviations.
  statistic = ((times - 400) ** 2 / 400).sum()
  assert statistic < length - 1 + 6 * np.sqrt(2 * (length - 1))


def test_neighbours_in_the_data_are_not_neighbours_in_the_order():
  _, indices = order.shuffle(np.arange(10_000), 10_000, seed=0)
  together = np.abs(np.diff(indices)) == 1
  assert together.mean() < 0.002  # By chance 2 / 10,000.
  correlation = np.corrcoef(indices[1:], indices[:-1])[0, 1]
  assert abs(correlation) < 0.05


def test_a_billion_examples_take_no_memory():
  positions = np.array([0, 1, 10**9 - 1, 10**9])
  epochs, indices = order.shuffle(positions, 10**9, seed=0)
  assert epochs.tolist() == [0, 0, 0, 1]
  assert (indices >= 0).all() and (indices < 10**9).all()


@pytest.mark.parametrize("length", [1, 2, 5, 200])
def test_a_walk_visits_others_once(length):
  for index in {0, length - 1}:
    others = order.walk(3, index, length, seed=1, count=100).tolist()
    assert len(others) == min(100, length - 1)
    assert set(others) <= set(range(length)) - {index}
    assert len(set(others)) == len(others)


def test_walks_depend_on_seed_epoch_and_index():
  def walk(epoch, index, seed):
    return tuple(order.walk(epoch, index, 1000, seed, 8).tolist())

  assert walk(0, 1, 2) == walk(0, 1, 2)
  walks = {walk(0, 1, 2), walk(1, 1, 2), walk(0, 2, 2), walk(0, 1, 3)}
  assert len(walks | {walk(1, 0, 2)}) == 5


def test_replacements_are_spread_evenly():
  # Else an example beside many broken ones would be seen far too often.
  first = [
    order.walk(epoch, index, 20, 0, 1)[0]
    for epoch in range(20)
    for index in range(20)
  ]
  times = np.bincount(first, minlength=20)
  # Chi-squared with 19 degrees of freedom: mean and 6 deviations.
  assert ((times - 20) ** 2 / 20).sum() < 19 + 6 * np.sqrt(2 * 19)


def test_order_is_pinned():
  # A change of these numbers changes the data order of every resumed run.
  _, indices = order.shuffle(np.arange(16), 8, seed=0)
  assert indices.tolist() == [4, 3, 2, 1, 7, 5, 0, 6, 6, 7, 1, 2, 5, 3, 0, 4]
  _, indices = order.shuffle(np.arange(1000, 1008), 1000, seed=7)
  assert indices.tolist() == [674, 470, 820, 144, 936, 79, 794, 766]


def test_of_each_block_one_number_falls_into_each_part():
  drawn = order.spread(np.arange(3 * order.BLOCK), seed=5)
  for block in drawn.reshape(3, order.BLOCK):
    assert sorted((block * order.BLOCK).astype(int)) == [*range(order.BLOCK)]
  assert len(set(drawn)) == len(drawn)
  # A position by itself is even over the seeds, and knows not of its neighbor.
  many = np.array([order.spread(np.arange(2), seed) for seed in range(1000)])
  assert abs(many.mean() - 0.5) < 0.02 and abs(many.var() - 1 / 12) < 0.006
  assert abs(np.corrcoef(many.T)[0, 1]) < 0.1
