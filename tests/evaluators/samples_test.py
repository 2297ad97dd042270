import numpy as np

from mmjax.evaluators import samples


def test_examples_are_from_all_over_the_split(fake):
  batches = fake.batched({"x": np.arange(21)}, 4)

  batch, count = samples.spread(batches(), 3)

  assert count == 3
  assert batch["x"].tolist() == [0, 10, 20, 20]  # As large as the others.
  assert batch["example_mask"].all()


def test_a_small_split_is_shown_once(fake):
  batch, count = samples.spread(fake.batched({"x": np.arange(2)}, 4)(), 8)

  assert count == 2
  assert batch["x"].tolist() == [0, 1, 1, 1]


def test_the_first_of_each_value_come_in_full_batches(fake):
  keys = np.array(list("aabacbbdeef"), object)
  batches = fake.batched({"x": np.arange(11), "key": keys}, 2)

  found = list(samples.firsts(batches(), "key"))

  assert [b["x"].tolist() for b in found] == [[0, 2], [4, 7], [8, 10]]
  assert all(b["example_mask"].all() for b in found)


def test_the_last_batch_of_firsts_is_filled_up(fake):
  batches = fake.batched(
    {"x": np.arange(5), "key": np.array([3, 3, 1, 2, 2])}, 2
  )

  found = list(samples.firsts(batches(), "key"))

  assert [b["x"].tolist() for b in found] == [[0, 2], [3, 3]]
  assert found[1]["example_mask"].tolist() == [True, False]


def test_examples_are_taken_by_their_place(fake):
  video = np.arange(5 * 3 * 12, dtype=np.uint8).reshape(5, 3, 2, 2, 3)

  found = samples.take(fake.batched({"video": video}, 2)(), "video", [1, 4])

  assert sorted(found) == [1, 4]
  for row, frame in found.items():  # The one in the middle.
    np.testing.assert_array_equal(frame, video[row, 1])
