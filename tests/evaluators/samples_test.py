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
