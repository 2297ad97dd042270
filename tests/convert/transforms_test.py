import itertools

import numpy as np
import pytest

from mmjax.convert import transforms as t
from mmjax.core import errors

D, K, H = 4, 2, 3  # Channels, heads, channels of a head.


def _random(rng, *shape):
  return rng.normal(size=shape).astype(np.float32)


# Transform, shapes of theirs, shapes of ours.
CASES = {
  "same": (t.Same(), [(2, 3)], [(2, 3)]),
  "same, lead": (t.Same(lead=1), [(1, 2, 3)], [(2, 3)]),
  "flat": (t.Flat(), [(6,)], [(K, H)]),
  "torch": (t.Matrix(), [(K * H, D)], [(D, K, H)]),
  "torch, out": (t.Matrix(2), [(D, K * H)], [(K, H, D)]),
  "conv1d": (t.Matrix(transposed=False), [(D, K * H)], [(D, K, H)]),
  "merged": (t.Merged(0, t.Matrix()), [(3 * K * H, D)], [(D, K, H)] * 3),
  "merged bias": (t.Merged(0, t.Flat()), [(3 * K * H,)], [(K, H)] * 3),
  "patches": (t.Patches(), [(D, 3, 2, 2)], [(12, D)]),
  "patches, jax": (t.Patches(torch=False), [(2, 2, 3, D)], [(12, D)]),
  "windows": (t.Windows(3), [(D, 2, 3)], [(6, D)]),
  "rows": (t.Rows(), [(5, D)], [(5, D)]),
}
# Those of theirs cannot come back: part of them has no place.
LOSSY = {
  "rows, first": (t.Rows(skip=2), [(7, D)], [(5, D)]),
  "rows, more": (t.Rows(used=5, fill=-9.0), [(5, D)], [(7, D)]),
  "class": (t.WithClass(), [(1, 1, D), (1, 6, D)], [(1, 1, D), (5, D)]),
  "class, flat": (t.WithClass(False), [(D,), (6, D)], [(1, 1, D), (5, D)]),
}


@pytest.mark.parametrize("name", CASES)
def test_theirs_come_back(rng, name):
  how, theirs, ours = CASES[name]
  given = [_random(rng, *shape) for shape in theirs]
  made = how.into(given, ours)
  assert [x.shape for x in made] == ours
  for a, b in zip(how.back(made), given, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [*CASES, *LOSSY])
def test_ours_come_back(rng, name):
  how, theirs, ours = {**CASES, **LOSSY}[name]
  given = how.into([_random(rng, *shape) for shape in theirs], ours)
  made = how.into(how.back(given), ours)
  for a, b in zip(made, given, strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_torch_matrix_splits_into_heads(rng):
  kernel = _random(rng, K * H, D)
  [ours] = t.Matrix().into([kernel], [(D, K, H)])
  for d, k, h in itertools.product(range(D), range(K), range(H)):
    assert ours[d, k, h] == kernel[k * H + h, d]


def test_merged_kernels_come_apart(rng):
  kernel = _random(rng, D, 3 * K * H)
  parts = t.Merged(1, t.Matrix(transposed=False)).into(
    [kernel], [(D, K, H)] * 3
  )
  x = _random(rng, D)
  together = x @ kernel
  for i, part in enumerate(parts):
    np.testing.assert_allclose(
      np.einsum("d,dkh->kh", x, part).ravel(),
      together[i * K * H : (i + 1) * K * H],
      rtol=1e-5,
    )


def test_positions_without_the_class_come_back_only_if_its_own_is_zero(rng):
  places = _random(rng, 1, 6, D)
  with pytest.raises(errors.UserError, match="position of its own"):
    t.WithoutClass().into([places], [(5, D)])
  places[:, 0] = 0
  made = t.WithoutClass().into([places], [(5, D)])
  np.testing.assert_array_equal(made[0], places[0, 1:])
  np.testing.assert_array_equal(t.WithoutClass().back(made)[0], places)


def test_patches_are_a_convolution(rng):
  kernel, picture = _random(rng, D, 3, 2, 2), _random(rng, 2, 2, 3)
  [ours] = t.Patches().into([kernel], [(12, D)])
  expected = [
    sum(
      picture[r, c, ch] * kernel[d, ch, r, c]
      for r, c, ch in itertools.product(range(2), range(2), range(3))
    )
    for d in range(D)
  ]
  np.testing.assert_allclose(picture.ravel() @ ours, expected, rtol=1e-5)


def test_windows_are_a_convolution_over_time(rng):
  kernel, x = _random(rng, D, 2, 3), _random(rng, 5, 2)  # d c w; t c
  [ours] = t.Windows(3).into([kernel], [(6, D)])
  for i in range(3):
    expected = sum(kernel[:, :, j] @ x[i + j] for j in range(3))
    got = x[i : i + 3].reshape(-1) @ ours
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_the_class_token_gets_its_position(rng):
  token, positions = _random(rng, 1, 1, D), _random(rng, 1, 6, D)
  ours, rest = t.WithClass().into([token, positions], [(1, 1, D), (5, D)])
  np.testing.assert_array_equal(ours[0, 0], token[0, 0] + positions[0, 0])
  np.testing.assert_array_equal(rest, positions[0, 1:])


def test_rows_that_only_ours_has_are_filled(rng):
  table = _random(rng, 5, D)
  [ours] = t.Rows(used=5, fill=-9.0).into([table], [(7, D)])
  np.testing.assert_array_equal(ours[:5], table)
  assert np.all(ours[5:] == -9.0)
  ours[6] = 1.0
  with pytest.raises(errors.UserError, match="Rows 5 and on"):
    t.Rows(used=5, fill=-9.0).back([ours])


def test_what_they_have_no_place_for_is_refused():
  how = t.Absent(3, -9.0)
  [made] = how.into([], [(5,)])
  np.testing.assert_array_equal(made, [0, 0, 0, -9, -9])
  assert how.back([made]) == []
  made[1] = 0.1
  with pytest.raises(errors.UserError, match="no place"):
    how.back([made])


@pytest.mark.parametrize(
  "how, theirs, ours",
  [
    (t.Flat(), (7,), (K, H)),
    (t.Matrix(), (D, K * H), (D, K, H)),  # Not transposed.
    (t.Matrix(), (D,), (D, K, H)),
    (t.Patches(), (D, 12), (12, D)),
    (t.Rows(), (5, D), (7, D)),  # Rows are missing, and nobody says so.
    (t.Rows(), (7, D), (5, D)),
  ],
)
def test_other_shapes_are_refused(rng, how, theirs, ours):
  with pytest.raises(errors.UserError, match="does not become"):
    how.into([_random(rng, *theirs)], [ours])
