import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors
from mmjax.models.encoders.vit import PatchStem
from mmjax.models.layers.positions import (
  KINDS,
  from_sincos,
  grid_coordinates,
  position_table,
  rotary_angles,
  rotate,
  sincos,
  sincos_1d,
)

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


def test_three_axes_have_a_third_of_the_channels_each():
  got = sincos((2, 3, 4), 20)  # 6 channels an axis, and 2 left over.
  for t in range(2):
    for r in range(3):
      for c in range(4):
        expected = [*_row_by_hand(t, 6), *_row_by_hand(r, 6)]
        expected += [*_row_by_hand(c, 6), 0, 0]
        np.testing.assert_allclose(
          got[(t * 3 + r) * 4 + c], expected, atol=1e-12
        )


def test_coordinates_run_fastest_along_the_last_axis():
  got = grid_coordinates((2, 3))
  assert got.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]


def test_rotary_turns_pairs_as_complex_numbers(rng):
  # Two coordinates, heads of 10 channels: two pairs each, and 2 left over.
  x = rng.normal(size=(1, 3, 2, 10))
  places = np.asarray([[[0, 0], [3, 1], [2, 7]]], np.float32)
  angles = rotary_angles(jnp.asarray(places), 10)
  got = rotate(jnp.asarray(x, jnp.float32), angles)
  assert angles.shape == (1, 3, 4)
  for i in range(3):
    turns = [
      place * 10_000 ** (-pair / 2) for place in places[0, i] for pair in (0, 1)
    ]
    for k in range(2):
      numbers = x[0, i, k, :4] + 1j * x[0, i, k, 4:8]
      turned = numbers * np.exp(1j * np.asarray(turns))
      np.testing.assert_allclose(got[0, i, k, :4], turned.real, atol=1e-5)
      np.testing.assert_allclose(got[0, i, k, 4:8], turned.imag, atol=1e-5)
      np.testing.assert_allclose(got[0, i, k, 8:], x[0, i, k, 8:], atol=1e-6)


def test_products_of_turned_vectors_depend_on_the_distance_only(rng):
  q, k = jnp.asarray(rng.normal(size=(2, 1, 1, 1, 16)), jnp.float32)

  def product(at, other):
    def turn(x, place):
      where = jnp.full((1, 1, 1), place, jnp.float32)
      return rotate(x, rotary_angles(where, 16))

    return jnp.sum(turn(q, at) * turn(k, other))

  np.testing.assert_allclose(product(3, 1), product(40, 38), rtol=1e-4)
  assert abs(product(3, 1) - product(3, 2)) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_only_learned_positions_bring_parameters(kind):
  class Module(nn.Module):
    @nn.compact
    def __call__(self):
      return position_table(kind, (2, 3), 8)

  table, variables = Module().init_with_output(KEY)
  assert bool(variables) == (kind == "learned")
  if kind in ("learned", "sincos"):
    np.testing.assert_allclose(table, sincos((2, 3), 8), atol=1e-6)
  else:
    assert table is None


def test_unknown_positions_are_refused_with_the_nearest_name():
  with pytest.raises(errors.UserError, match="Did you mean 'rotary'"):
    position_table("rotery", (2,), 8)


def test_heads_too_narrow_to_turn_are_refused():
  with pytest.raises(ValueError, match="head_dim=2, expected at least 4"):
    rotary_angles(jnp.zeros((1, 1, 2)), 2)
