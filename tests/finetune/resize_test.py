import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors, trees
from mmjax.finetune import resize, surgery
from mmjax.models.layers.places import own_places, sample
from mmjax.models.layers.positions import grid_coordinates

TABLE = "encoders_image/stem/positions/table"


def _load(name, old, new, entries, dim=4):
  source = trees.unflatten({name: np.ones((old, dim), np.float32)})
  target = trees.unflatten({name: np.zeros((new, 4), np.float32)})
  return surgery.load_partial(target, source, resize=entries)


@pytest.mark.parametrize(
  ("old", "new"), [((3, 3), (5, 5)), ((8, 8), (3, 3)), ((4, 6), (5, 3))]
)
def test_tables_are_resized_as_pillow_resizes_pictures(rng, old, new):
  """Pillow's bilinear filter has half-pixel centres and antialiases too."""
  table = rng.normal(size=(old[0] * old[1], 3)).astype(np.float32)
  got = resize.resize(table, old, new)
  for channel in range(3):
    picture = Image.fromarray(table[:, channel].reshape(old))
    expected = picture.resize(new[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_allclose(
      got[:, channel].reshape(new), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("old", "new"), [((3, 4), (5, 7)), ((8, 8), (3, 5))])
def test_cubic_is_that_of_pillow(rng, old, new):
  table = rng.normal(size=(old[0] * old[1], 2)).astype(np.float32)
  got = resize.resize(table, old, new, "cubic")
  for channel in range(2):
    picture = Image.fromarray(table[:, channel].reshape(old))
    expected = picture.resize(new[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_allclose(
      got[:, channel].reshape(new), expected, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(("old", "new"), [((4, 6), (7, 9)), ((9, 7), (4, 3))])
def test_cubic_sharp_is_a_spline_of_slopes_three_quarters(rng, old, new):
  """A cubic whose slope at a cell is 0.75 of what its neighbours differ by."""
  table = rng.normal(size=(old[0] * old[1], 2)).astype(np.float32)
  got = resize.resize(table, old, new, "cubic_sharp")

  def along(line, wanted):
    place = (np.arange(wanted) + 0.5) * len(line) / wanted - 0.5
    out = []
    for x in place:
      i, t = int(np.floor(x)), x - np.floor(x)
      at = np.clip(np.arange(i - 1, i + 3), 0, len(line) - 1)
      a, b, c, d = line[at]
      start, end = 0.75 * (c - a), 0.75 * (d - b)  # Slopes; Hermite's form:
      out.append(
        (2 * t**3 - 3 * t**2 + 1) * b
        + (t**3 - 2 * t**2 + t) * start
        + (3 * t**2 - 2 * t**3) * c
        + (t**3 - t**2) * end
      )
    return np.stack(out)

  cells = table.astype(np.float64).reshape(*old, 2)
  rows = along(cells, new[0])
  expected = along(rows.swapaxes(0, 1), new[1]).swapaxes(0, 1)
  np.testing.assert_allclose(got, expected.reshape(-1, 2), rtol=1e-5, atol=1e-5)


def test_an_unknown_method_is_refused():
  with pytest.raises(errors.UserError, match="Did you mean 'cubic'"):
    resize.resize(np.zeros((4, 2), np.float32), (2, 2), (3, 3), "cubik")


def test_a_line_is_interpolated(rng):
  table = rng.normal(size=(6, 2)).astype(np.float32)
  got = resize.resize(table, (6,), (15,))
  places = (np.arange(15) + 0.5) * 6 / 15 - 0.5
  for channel in range(2):
    expected = np.interp(places, np.arange(6), table[:, channel])
    np.testing.assert_allclose(got[:, channel], expected, rtol=1e-4, atol=1e-5)


def test_three_axes_are_resized_one_by_one(rng):
  table = rng.normal(size=(2 * 3 * 4, 2)).astype(np.float32)
  got = resize.resize(table, (2, 3, 4), (5, 3, 4)).reshape(5, 12, 2)
  places = (np.arange(5) + 0.5) * 2 / 5 - 0.5
  lines = table.reshape(2, 12, 2)
  for cell in range(12):
    for channel in range(2):
      expected = np.interp(places, np.arange(2), lines[:, cell, channel])
      np.testing.assert_allclose(
        got[:, cell, channel], expected, rtol=1e-4, atol=1e-5
      )


def test_a_larger_table_holds_what_a_model_reads_from_the_old_one(rng):
  """Loading at another size or reading at another size: the same tokens."""
  table = rng.normal(size=(12, 4)).astype(np.float32)
  where = jnp.asarray(grid_coordinates((6, 5)), jnp.int32)[None]
  places = own_places(where, jnp.ones((1, 30), bool), (3, 4))
  read = sample(jnp.asarray(table), (3, 4), places)[0]
  np.testing.assert_allclose(
    resize.resize(table, (3, 4), (6, 5)), read, rtol=1e-4, atol=1e-5
  )


def test_a_load_resizes_what_it_is_told_to_and_says_so():
  merged, report = _load(TABLE, 64, 144, ("encoders_image/.*",))
  got = trees.flatten(merged)[TABLE]
  assert got.dtype == np.float32
  np.testing.assert_allclose(got, np.ones((144, 4)), rtol=1e-6)
  assert f"  {TABLE}: resized 8x8 -> 12x12" in str(report).splitlines()


def test_a_table_that_fits_stays(rng):
  merged, report = _load(TABLE, 64, 64, (".*",))
  assert not report.changed
  np.testing.assert_array_equal(trees.flatten(merged)[TABLE], 1.0)


def test_without_being_told_another_size_is_an_error_with_a_hint():
  with pytest.raises(errors.UserError, match=r"float32\[64.*init\.resize\)"):
    _load(TABLE, 64, 144, ())
  with pytest.raises(errors.UserError) as e:  # Another width: no hint.
    _load(TABLE, 64, 144, (TABLE,), dim=8)
  assert "init.resize" not in str(e.value)


@pytest.mark.parametrize("entry", [tuple, list])
def test_grids_that_are_not_square_are_given(entry):
  name = "encoders_audio/stem/positions/table"
  given = entry(("encoders_audio/.*", "8x4", "16x4"))
  _, report = _load(name, 32, 64, (given,))
  assert report.changed == {name: "resized 8x4 -> 16x4"}
  _, report = _load(name, 4, 9, (entry((".*", "4", "9")),))  # One axis.
  assert report.changed == {name: "resized 4 -> 9"}


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (".*", "32 rows .* 64 in the model, which do not make square grids"),
    ((".*", "8x8", "16x4"), "do not make 8x8 -> 16x4"),
    ((".*", "8x4", "64"), "expected a pattern, or a pattern, the old grid"),
    ((".*", "8x-4", "16x4"), "expected a pattern"),
    ((".*", "8x4"), "expected a pattern"),
    ("encoders_text/.*", "matches none of the 1 tables of positions"),
  ],
)
def test_entries_that_do_not_fit_are_refused(entry, message):
  with pytest.raises(errors.UserError, match=message):
    _load("encoders_audio/stem/positions/table", 32, 64, (entry,))


@pytest.mark.parametrize("entry", [".*", (".*", "64", "256")])
def test_tables_of_text_are_not_resized(entry):
  name = "encoders_text/stem/positions/table"
  with pytest.raises(errors.UserError, match="counted one by one"):
    _load(name, 64, 256, (entry,))
  with pytest.raises(errors.UserError) as e:
    _load(name, 64, 256, ())
  assert "init.resize" not in str(e.value)


def test_other_parameters_of_other_shapes_stay_errors():
  with pytest.raises(errors.UserError, match="matches none of the 0 tables"):
    _load("encoders_image/stem/patches/kernel", 64, 144, (".*",))
