import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.models.encoders.vit import PatchStem
from mmjax.models.layers.positions import from_sincos, sincos, sincos_1d

KEY = jax.random.key(0)


def _row_by_hand(position, dim):
  half = dim // 2
  angles = [position / 10_000 ** (i / half) for i in range(half)]
  return [math.sin(a) for a in angles] + [math.cos(a) for a in angles]


def test_positions_on_a_line_are_sines_then_cosines():
  got = sincos_1d(50, 6)
  for i in range(50):
    np.testing.assert_allclose(
      got[i], _row_by_hand(i, 6), rtol=1e-9, atol=1e-12
    )


def test_positions_in_a_grid_go_row_by_row():
  got = sincos((3, 5), 8)
  assert got.shape == (15, 8)
  for r in range(3):
    for c in range(5):
      expected = _row_by_hand(r, 4) + _row_by_hand(c, 4)
      np.testing.assert_allclose(got[5 * r + c], expected, atol=1e-12)


def test_all_positions_of_a_grid_differ():
  got = sincos((14, 14), 192)
  distances = np.linalg.norm(got[:, None] - got[None], axis=-1)
  assert np.min(distances + 9 * np.eye(196)) > 0.1


def test_a_table_starts_from_them_whatever_the_key():
  init = from_sincos((2, 3))
  tables = [init(jax.random.key(i), (6, 8), jnp.float32) for i in range(2)]
  assert tables[0].dtype == jnp.float32
  np.testing.assert_array_equal(tables[0], tables[1])
  np.testing.assert_allclose(tables[0], sincos((2, 3), 8), atol=1e-6)


def test_positions_of_patches_start_from_rows_and_columns():
  image = jnp.zeros((1, 4, 6, 3), jnp.uint8)
  variables = nn.meta.unbox(PatchStem(2, 8).init(KEY, image))
  table = variables["params"]["positions"]["table"]
  # Two rows of three patches: the fifth is in row 1, column 1.
  np.testing.assert_allclose(table[4], 2 * _row_by_hand(1, 4), atol=1e-6)
  np.testing.assert_allclose(
    table[5], _row_by_hand(1, 4) + _row_by_hand(2, 4), atol=1e-6
  )


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: sincos_1d(3, 5), "dim=5, expected an even number"),
    (lambda: sincos((2, 2), 3), "dim=3, expected at least 4"),
  ],
)
def test_widths_that_do_not_split_are_refused(make, message):
  with pytest.raises(ValueError, match=message):
    make()
