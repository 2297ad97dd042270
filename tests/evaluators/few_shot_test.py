import dataclasses

import numpy as np
import pytest

from mmjax.core import errors
from mmjax.evaluators import few_shot
from mmjax.evaluators.few_shot import FewShot


@pytest.mark.parametrize("count", [6, 40])  # Fewer and more than features.
def test_the_fit_is_where_the_gradient_vanishes(rng, count):
  x, queries = rng.normal(size=(count, 9)), rng.normal(size=(5, 9))
  classes = rng.integers(0, 3, count)
  got = few_shot.ridge(x, classes, queries, num_classes=3, l2=0.3)

  mean, deviation = x.mean(axis=0), x.std(axis=0)
  ones = np.ones((count, 1))
  design = np.hstack([(x - mean) / deviation, ones])
  # Penalty on all but the bias: ordinary least squares of more rows.
  rows = np.sqrt(0.3 * count) * np.eye(10)[:9]
  targets = np.vstack([np.eye(3)[classes], np.zeros((9, 3))])
  weights = np.linalg.lstsq(np.vstack([design, rows]), targets, rcond=None)[0]
  expected = np.hstack([(queries - mean) / deviation, np.ones((5, 1))])
  np.testing.assert_allclose(got, expected @ weights, rtol=1e-4, atol=1e-5)


def test_a_draw_has_so_many_of_each_class(rng):
  classes = np.array([0] * 9 + [2] * 3 + [3] * 1)
  rows = few_shot.pick(classes, 3, rng)
  assert len(set(rows)) == len(rows)
  assert sorted(classes[rows]) == [0, 0, 0, 2, 2, 2, 3]
  other = few_shot.pick(classes, 3, np.random.default_rng(5))
  assert set(rows) != set(other)


@pytest.fixture
def made(fake, rng):
  centres = np.array([[6.0, 0.0], [0.0, 6.0], [-6.0, -6.0]])

  def columns(count, noise):
    labels = np.arange(count) % 3
    x = centres[labels] + noise * rng.normal(size=(count, 2))
    return {"image": x.astype(np.float32), "label": labels.astype(np.int32)}

  def make(noise=1.0, **options):
    test = columns(20, noise)
    test["label"][0] = 1  # Wrong: it has to be missed.
    return FewShot(
      batches=fake.batched(test, 8),
      train_batches=fake.batched(columns(60, noise), 16),
      num_classes=3,
      **options,
    )

  return make, fake.predict_with(pool=lambda batch, m, view: batch["image"])


def test_separable_classes_are_found(made):
  make, predict = made
  got = dict(make(shots=(5, 10)).run(predict, {}))
  assert got == {
    "5_shot/top1": pytest.approx(19 / 20),
    "5_shot/deviation": pytest.approx(0, abs=1e-9),
    "10_shot/top1": pytest.approx(19 / 20),
    "10_shot/deviation": pytest.approx(0, abs=1e-9),
  }


def test_the_same_seed_draws_the_same(made):
  make, predict = made
  first = make(noise=6.0, shots=(1,), num_draws=8)
  second = dataclasses.replace(first, seed=1)
  one, same, other = (
    dict(made.run(predict, {})) for made in (first, first, second)
  )
  assert one == same
  assert one != other


def test_wrong_options_are_refused(made):
  for options in ({"shots": ()}, {"shots": (0,)}, {"num_draws": 0}):
    with pytest.raises(errors.UserError, match="1 or more"):
      made[0](**options)
  with pytest.raises(errors.UserError, match="l2=0"):
    made[0](l2=0.0)
