import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from mmjax.core import errors
from mmjax.models.encoders.vit import PatchStem, patchify, vit
from mmjax.models.layers.places import own_places, sample, sincos_at
from mmjax.models.layers.positions import KINDS, sincos

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)


def _bag(rows, columns, length):
  coordinates = np.zeros((length, 2), np.int32)
  cells = [(r, c) for r in range(rows) for c in range(columns)]
  coordinates[: len(cells)] = cells
  return coordinates, np.arange(length) < len(cells)


@pytest.fixture(scope="module")
def bags():
  """Grids of 3x4, 2x6, 1x1 and 5x2, of up to 12 patches."""
  shapes = [(3, 4), (2, 6), (1, 1), (5, 2)]
  coordinates, mask = zip(*(_bag(*shape, 12) for shape in shapes), strict=True)
  return shapes, np.stack(coordinates), np.stack(mask)


def test_places_stretch_a_grid_over_the_own_one(bags):
  shapes, coordinates, mask = bags
  got = own_places(jnp.asarray(coordinates), jnp.asarray(mask), (3, 5))
  for i, (rows, columns) in enumerate(shapes):
    for j in np.flatnonzero(mask[i]):
      r, c = coordinates[i, j]
      expected = [(r + 0.5) * 3 / rows - 0.5, (c + 0.5) * 5 / columns - 0.5]
      np.testing.assert_allclose(got[i, j], expected, rtol=1e-5, atol=1e-6)


def test_tables_are_read_bilinearly_and_clamped_at_the_edges(rng):
  table = rng.normal(size=(15, 4)).astype(np.float32)
  places = rng.uniform(-1, 5, (2, 30, 2)).astype(np.float32)
  got = sample(jnp.asarray(table), (3, 5), jnp.asarray(places))
  for channel in range(4):
    # SciPy's clamping of coordinates: "nearest", of order 1.
    expected = ndimage.map_coordinates(
      table[:, channel].reshape(3, 5),
      places.reshape(-1, 2).T,
      order=1,
      mode="nearest",
    )
    np.testing.assert_allclose(
      got[..., channel].reshape(-1), expected, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dim", [8, 10])
def test_sines_at_places_are_the_rows_of_a_large_enough_grid(dim, rng):
  table = sincos((40, 300), dim)
  coordinates = np.stack(
    [rng.integers(0, 40, (2, 9)), rng.integers(0, 300, (2, 9))], axis=-1
  )
  got = sincos_at(jnp.asarray(coordinates, jnp.int32), dim)
  expected = table[coordinates[..., 0] * 300 + coordinates[..., 1]]
  np.testing.assert_allclose(got, expected, atol=1e-4)  # Sines of 300, float32.


def test_channels_that_do_not_split_are_refused():
  with pytest.raises(ValueError, match="dim=3, expected at least 4"):
    sincos_at(jnp.zeros((1, 1, 2), jnp.int32), 3)


@pytest.fixture(scope="module")
def picture():
  """Two pictures of 3x3 patches; their bags, with two that don't count."""
  rng = np.random.default_rng(4)
  image = jnp.asarray(rng.integers(0, 256, (2, 6, 6, 3)), jnp.uint8)
  noise = jnp.asarray(rng.integers(0, 256, (2, 2, 12)), jnp.uint8)
  coordinates, mask = _bag(3, 3, 11)
  return (
    image,
    jnp.concatenate([patchify(image, 2), noise], axis=1),
    dict(
      coordinates=jnp.asarray(np.stack([coordinates] * 2)),
      mask=jnp.asarray(np.stack([mask] * 2)),
    ),
  )


@pytest.mark.parametrize("positions", KINDS)
@pytest.mark.parametrize("hidden", ["replace", "drop"])
def test_tokens_of_a_bag_of_all_patches_are_those_of_the_picture(
  picture, positions, hidden, randomized
):
  image, bag, where = picture
  stem = PatchStem(2, 16, hidden, positions=positions, grid=(3, 3))
  params = randomized(stem, image)
  taken = jnp.asarray([[0, 4], [8, 3]], jnp.int32)
  whole = stem.apply({"params": params}, image, hidden=taken)
  cut = stem.apply({"params": params}, bag, hidden=taken, **where)
  n = whole.x.shape[1]
  assert n == (9 if hidden == "replace" else 7)
  np.testing.assert_allclose(cut.x[:, :n], whole.x, rtol=1e-5, atol=1e-5)
  places = np.broadcast_to(whole.coordinates, (2, n, 2))
  np.testing.assert_array_equal(cut.coordinates[:, :n], places)
  np.testing.assert_array_equal(cut.mask, [[True] * n + [False] * 2] * 2)
  assert (cut.num_content, whole.num_content) == (11, 9)
  if hidden == "drop":
    np.testing.assert_array_equal(cut.positions[:, :n], whole.positions)


def test_an_encoder_turns_patches_of_a_bag_as_those_of_the_picture(
  picture, randomized
):
  image, bag, where = picture
  encoder = vit(image_size=6, patch_size=2, size=SIZE, positions="rotary")
  params = randomized(encoder, image, train=False)

  @jax.jit
  def run(params):
    def apply(x, **kwargs):
      return encoder.apply({"params": params}, x, train=False, **kwargs).x

    return apply(image), apply(bag, **where)

  whole, cut = run(params)
  np.testing.assert_allclose(cut[:, :9], whole, rtol=1e-5, atol=1e-5)


def test_pictures_of_several_shapes_share_a_batch(bags, randomized):
  """Each alone, without padding, gives the same."""
  shapes, coordinates, mask = bags
  rng = np.random.default_rng(5)
  bag = rng.integers(0, 256, (4, 12, 12)).astype(np.uint8)
  encoder = vit(image_size=8, patch_size=2, size=SIZE)

  def run(params, i=slice(None), n=12):
    return encoder.apply(
      {"params": params},
      jnp.asarray(bag[i, :n]),
      mask=jnp.asarray(mask[i, :n]),
      coordinates=jnp.asarray(coordinates[i, :n]),
      train=False,
    )

  params = randomized(
    encoder,
    jnp.asarray(bag),
    coordinates=jnp.asarray(coordinates),
    train=False,
  )
  # The table is of the model's own grid, whatever is cut.
  assert params["stem"]["positions"]["table"].shape == (16, 16)
  together, alone = jax.jit(
    lambda p: (run(p), [run(p, slice(i, i + 1), 10) for i in (2, 3)])
  )(params)
  for i, single in zip((2, 3), alone, strict=True):
    n = shapes[i][0] * shapes[i][1]
    np.testing.assert_allclose(
      together.x[i, :n], single.x[0, :n], rtol=1e-4, atol=1e-5
    )


BAG = np.zeros((1, 4, 12), np.uint8)
WHERE = np.zeros((1, 4, 2), np.int32)


@pytest.mark.parametrize(
  ("fields", "inputs", "where", "message"),
  [
    ({}, BAG, None, "needs the field image_coordinates"),
    ({}, np.zeros((1, 4, 48), np.uint8), WHERE, "of 48 bytes.*of 2x2x3"),
    (dict(stem="conv"), BAG, WHERE, "Convolutions take whole images"),
    ({}, np.zeros((1, 8, 8, 3), np.uint8), WHERE, "its images are whole"),
    (dict(positions="rotery"), BAG, WHERE, "Did you mean 'rotary'"),
  ],
)
def test_inputs_that_do_not_fit_are_refused(fields, inputs, where, message):
  encoder = vit(image_size=8, patch_size=2, size=SIZE, **fields)
  given = {} if where is None else {"coordinates": jnp.asarray(where)}
  with pytest.raises(errors.UserError, match=message):
    jax.eval_shape(
      lambda: encoder.init(
        jax.random.key(0), jnp.asarray(inputs), train=False, **given
      )
    )


def test_the_own_grid_is_what_the_data_allow_unless_said():
  def grid(**fields):
    return vit(patch_size=8, size=SIZE, **fields).stem.grid

  assert grid(image_patches=(8, 256)) == (16, 16)
  assert grid(image_patches=(8, 200)) == (14, 14)
  assert grid(image_patches=(8, 256), image_size=64) == (8, 8)
  with pytest.raises(errors.UserError, match="patch_size=8, .* of 16 pixels"):
    grid(image_patches=(16, 256))
  with pytest.raises(errors.UserError, match="image_size is missing"):
    grid()
