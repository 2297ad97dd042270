import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import axes, errors, precision, trees
from mmjax.models.encoders import ENCODERS
from mmjax.models.encoders.vit import (
  PatchStem,
  normalize,
  patchify,
  unpatchify,
  vit,
)
from mmjax.models.layers.hidden import HIDDEN
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.positions import KINDS as POSITIONS
from mmjax.models.variants import SIZES

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
PATCH, ROWS, COLUMNS = 2, 3, 3
NUM = ROWS * COLUMNS
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def image():
  rng = np.random.default_rng(3)
  shape = (3, ROWS * PATCH, COLUMNS * PATCH, 3)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)


@pytest.fixture(scope="module")
def hidden():
  return jnp.asarray([[8, 0, 3], [1, 2, 4], [7, 6, 5]], jnp.int32)


@pytest.fixture(scope="module", params=HIDDEN)
def setting(request, image, randomized):
  encoder = vit(
    image_size=ROWS * PATCH, patch_size=PATCH, size=SIZE, hidden=request.param
  )
  return request.param, encoder, randomized(encoder, image, train=False)


def _cut(image):
  """Patches by slicing, row by row."""
  image = np.asarray(image)
  return np.stack(
    [
      image[
        :, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH
      ].reshape(len(image), -1)
      for r in range(image.shape[1] // PATCH)
      for c in range(image.shape[2] // PATCH)
    ],
    axis=1,
  )


def _tokens(params, image, by_hand):
  """Embedded patches without positions, and the table of positions."""
  pixels = _cut(image) / 127.5 - 1.0
  x = by_hand.linear(params["stem"]["patches"], pixels)
  return x, np.asarray(params["stem"]["positions"]["table"])


def _encode(encoder, params, image, **kwargs):
  return jax.jit(
    lambda image: encoder.apply(
      {"params": params}, image, train=False, **kwargs
    )
  )(image)


def test_patches_without_bias_pass_a_norm_before_the_stack(
  image, randomized, by_hand
):
  encoder = vit(
    image_size=ROWS * PATCH,
    patch_size=PATCH,
    size=SIZE,
    pool="cls",
    patch_bias=False,
    input_norm=True,
  )
  params = randomized(encoder, image, train=False)
  assert set(params["stem"]["patches"]) == {"kernel"}
  x, positions = _tokens(params, image, by_hand)
  got = _encode(encoder, params, image).x
  for i in range(3):
    tokens = np.concatenate([params["cls"][0], x[i] + positions])
    tokens = by_hand.layer_norm(params["first_norm"], tokens)
    expected = by_hand.stack(params["stack"], tokens, np.ones(1 + NUM, bool))
    np.testing.assert_allclose(got[i], expected, rtol=1e-4, atol=1e-5)


def test_patches_are_cut_row_by_row(rng):
  image = rng.integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
  np.testing.assert_array_equal(
    patchify(jnp.asarray(image), PATCH), _cut(image)
  )


def test_unpatchify_puts_patches_where_they_were(rng):
  image = rng.random((2, 4, 6, 3)).astype(np.float32)
  np.testing.assert_array_equal(
    unpatchify(jnp.asarray(_cut(image)), (2, 3), PATCH), image
  )


def test_patches_that_do_not_tile_are_refused():
  with pytest.raises(errors.UserError, match="4x5 .* patches of 2x2"):
    patchify(jnp.zeros((1, 4, 5, 3)), 2)
  with pytest.raises(errors.UserError, match="image_size=5.*patch_size=2"):
    vit(image_size=5, patch_size=2)


def test_pixels_are_mapped_to_minus_one_to_one():
  got = normalize(jnp.asarray([0, 51, 255], jnp.uint8))
  np.testing.assert_allclose(got, [-1.0, -0.6, 1.0], rtol=1e-6)


def test_pixels_are_standardised_channel_by_channel(rng):
  pixels = rng.integers(0, 256, (2, 3, 3)).astype(np.uint8)
  mean, std = (0.8, 0.5, 0.2), (0.1, 0.25, 0.5)
  got = normalize(jnp.asarray(pixels), mean, std)
  for channel in range(3):
    expected = (pixels[..., channel] / 255.0 - mean[channel]) / std[channel]
    np.testing.assert_allclose(got[..., channel], expected, atol=1e-5)


def test_statistics_of_the_pixels_reach_the_stem(image):
  plain, centred = (
    PatchStem(PATCH, 16),
    PatchStem(
      PATCH, 16, pixel_mean=(0.8, 0.5, 0.2), pixel_std=(0.1, 0.25, 0.5)
    ),
  )
  variables = plain.init(KEY, image)
  # The same numbers by hand, as pixels that the plain stem would see.
  x = np.asarray(image) / 255.0
  x = (x - [0.8, 0.5, 0.2]) / [0.1, 0.25, 0.5]
  stem = variables["params"]
  patches = patchify(jnp.asarray(x, jnp.float32), PATCH)
  kernel, bias = (nn.meta.unbox(stem["patches"][n]) for n in ("kernel", "bias"))
  expected = patches @ kernel + jnp.expand_dims(bias, (0, 1))
  expected += jnp.expand_dims(nn.meta.unbox(stem["positions"]["table"]), 0)
  got = centred.apply(variables, image).x
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("how", HIDDEN)
def test_convolutions_see_nothing_of_hidden_patches(image, hidden, how):
  stem = PatchStem(PATCH, 16, how, kind="conv")
  variables = stem.init(KEY, image)
  other = np.asarray(image).copy()
  for row, patches in zip(other, np.asarray(hidden), strict=True):
    for patch in patches:
      y, x = PATCH * (patch // COLUMNS), PATCH * (patch % COLUMNS)
      row[y : y + PATCH, x : x + PATCH] = 7
  got = stem.apply(variables, jnp.asarray(other), hidden=hidden).x
  np.testing.assert_array_equal(
    got, stem.apply(variables, image, hidden=hidden).x
  )
  whole = stem.apply(variables, image).x
  assert np.abs(stem.apply(variables, jnp.asarray(other)).x - whole).max() > 0.1


def test_an_unknown_kind_of_stem_is_refused_with_the_nearest_name(image):
  with pytest.raises(errors.UserError, match="Did you mean 'conv'"):
    jax.eval_shape(lambda: PatchStem(PATCH, 16, kind="con").init(KEY, image))


def test_an_image_is_embedded_with_positions_then_mixed(
  setting, image, by_hand
):
  _, encoder, params = setting
  got = _encode(encoder, params, image)
  x, positions = _tokens(params, image, by_hand)
  for i in range(3):
    expected = by_hand.stack(
      params["stack"], x[i] + positions, np.ones(NUM, bool)
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  assert got.num_content == NUM and got.positions is None
  assert np.all(got.mask)


def test_hidden_patches_are_replaced_or_dropped(
  setting, image, hidden, by_hand
):
  how, encoder, params = setting
  got = _encode(encoder, params, image, hidden=hidden)
  x, positions = _tokens(params, image, by_hand)
  for i in range(3):
    if how == "replace":
      x[i, np.asarray(hidden[i])] = params["stem"]["mask_token"]
      tokens = x[i] + positions
    else:
      visible = np.setdiff1d(np.arange(NUM), hidden[i])
      np.testing.assert_array_equal(got.positions[i], visible)
      tokens = (x[i] + positions)[visible]
    expected = by_hand.stack(
      params["stack"], tokens, np.ones(len(tokens), bool)
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  assert got.num_content == NUM


def test_pixels_of_hidden_patches_do_not_matter(setting, image, hidden):
  _, encoder, params = setting
  patches = _cut(image)
  for i in range(3):
    patches[i, np.asarray(hidden[i])] = 200
  other = unpatchify(
    jnp.asarray(patches, jnp.float32), (ROWS, COLUMNS), PATCH
  ).astype(jnp.uint8)
  assert np.any(np.asarray(other) != np.asarray(image))
  np.testing.assert_array_equal(
    _encode(encoder, params, image, hidden=hidden).x,
    _encode(encoder, params, other, hidden=hidden).x,
  )


def test_dropping_keeps_the_mask_of_the_visible_patches(image, hidden):
  mask = np.ones((3, NUM), bool)
  mask[:, 4] = False
  stem = PatchStem(PATCH, 16, "drop")
  got = jax.jit(
    lambda: stem.init_with_output(
      KEY, image, mask=jnp.asarray(mask), hidden=hidden
    )[0]
  )()
  for i in range(3):
    visible = np.setdiff1d(np.arange(NUM), hidden[i])
    np.testing.assert_array_equal(got.mask[i], mask[i, visible])


def test_a_batch_of_one_gives_the_row_of_a_larger_batch(setting, image, hidden):
  _, encoder, params = setting
  whole = _encode(encoder, params, image, hidden=hidden)
  alone = _encode(encoder, params, image[1:2], hidden=hidden[1:2])
  np.testing.assert_allclose(whole.x[1:2], alone.x, rtol=1e-4, atol=1e-5)


def test_training_turns_dropout_and_drop_path_on(setting, image):
  _, encoder, params = setting
  noisy = encoder.clone(
    options=StackOptions(dropout_rate=0.3, drop_path_rate=0.3)
  )

  @jax.jit
  def run(dropout, drop_path):
    rngs = {"dropout": dropout, "drop_path": drop_path}
    return noisy.apply({"params": params}, image, train=True, rngs=rngs).x

  other = jax.random.key(1)
  first, again = run(KEY, KEY), run(KEY, KEY)
  np.testing.assert_array_equal(first, again)
  assert np.any(np.asarray(first) != np.asarray(run(other, KEY)))
  np.testing.assert_array_equal(  # Off, as if the rates were 0.
    _encode(noisy, params, image).x, _encode(encoder, params, image).x
  )


def test_one_tree_whether_or_not_patches_are_hidden(setting, image, hidden):
  _, encoder, params = setting
  shapes = jax.eval_shape(
    lambda: encoder.init(KEY, image, hidden=hidden, train=False)
  )
  assert trees.num_params(shapes["params"]) == trees.num_params(params)


def test_parameters_of_the_stem_carry_axis_names(image):
  boxed = jax.eval_shape(lambda: PatchStem(PATCH, 16).init(KEY, image))
  names = {k: v.names for k, v in boxed["params"]["patches"].items()}
  assert names == {"kernel": (axes.PATCH, axes.EMBED), "bias": (axes.EMBED,)}
  assert boxed["params"]["mask_token"].names == (axes.EMBED,)
  table = boxed["params"]["positions"]["table"]
  assert table.names == (axes.POSITION, axes.EMBED)


def test_bfloat16_activations_over_float32_parameters(image, hidden):
  encoder = vit(
    image_size=6,
    patch_size=2,
    size=SIZE,
    precision=precision.POLICIES["bfloat16"],
  )

  def run():
    out, variables = encoder.init_with_output(
      KEY, image, hidden=hidden, train=False
    )
    return out.x, variables

  x, variables = jax.eval_shape(run)
  assert x.dtype == jnp.bfloat16
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def test_an_unknown_way_to_hide_is_refused_with_the_nearest_name(image):
  encoder = vit(image_size=6, patch_size=2, size=SIZE, hidden="dropped")
  with pytest.raises(errors.UserError, match="Did you mean 'drop'"):
    jax.eval_shape(lambda: encoder.init(KEY, image, train=False))


def test_a_size_of_a_wrong_name_is_refused():
  with pytest.raises(errors.UserError, match="Unknown size 'XXL'"):
    vit(image_size=32, patch_size=16, size="XXL")


# At 224 pixels with a head of 1000 classes, as timm counts them: 5.7, 22.1,
# 86.6, 304.3, 632.0, 1012.6 and 1844.4 million.
PUBLISHED = {
  ("Ti", 16): 5_717_416,
  ("S", 16): 22_050_664,
  ("B", 16): 86_567_656,
  ("L", 16): 304_326_632,
  ("H", 14): 632_045_800,
  ("g", 14): 1_012_611_432,
  ("G", 14): 1_844_440_680,
}
# SigLIP's, without CLS and head, with attention pooling: 427.7 million.
SO400M = 427_680_704
SCAN = dict(scan=True)


def test_every_size_has_a_published_number_of_parameters():
  assert {size for size, _ in PUBLISHED} | {"So400m"} == set(SIZES)


def _count(size, patch_size, **options):
  # Layers stacked: traced once.
  encoder = vit(
    image_size=224, patch_size=patch_size, size=size, stack=SCAN, **options
  )

  def run(encoder, image):
    return encoder.pool(encoder(image, train=False))

  image = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8)
  return trees.num_params(
    jax.eval_shape(lambda image: encoder.init(KEY, image, method=run), image)
  )


@pytest.mark.parametrize(("size", "patch_size"), PUBLISHED)
def test_number_of_parameters_of_each_size(size, patch_size):
  d, layers = SIZES[size].embed_dim, SIZES[size].num_layers
  m = SIZES[size].mlp_dim
  num_patches = (224 // patch_size) ** 2
  assert PUBLISHED[size, patch_size] == (
    layers * (4 * d**2 + 2 * d * m + m + 9 * d)  # Blocks.
    + 2 * d  # Norm.
    + (3 * patch_size**2 + 1) * d  # Patches.
    + (num_patches + 1) * d  # Positions, one of them of CLS.
    + d  # CLS.
    + 1000 * (d + 1)  # Head.
  )
  # Ours is without head, and CLS has no position.
  ours = PUBLISHED[size, patch_size] - 1000 * (d + 1) - d
  assert _count(size, patch_size, pool="cls", hidden="drop") == ours


def test_what_stands_in_for_hidden_patches_is_one_more_token():
  pooled = dict(pool="cls", hidden="replace")
  ours = PUBLISHED["Ti", 16] - 1000 * 193 - 192
  assert _count("Ti", 16, **pooled) == ours + 192


def test_number_of_parameters_of_so400m():
  assert _count("So400m", 14, pool="map", hidden="drop") == SO400M


@pytest.mark.parametrize("pool", ["cls", "mean", "map"])
@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("name", ["vit", "hybrid"])
def test_every_encoder_pooling_and_kind_of_positions_go_together(
  name, pool, positions
):
  own = dict(stages=(1,), width_factor=0.5) if name == "hybrid" else {}
  size = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
  encoder = ENCODERS[name](
    image_size=8,
    patch_size=4,
    size=size,
    positions=positions,
    pool=pool,
    registers=3,
    **own,
  )
  image = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.uint8)
  num_prefix = 3 + (pool == "cls")

  def run(encoder, image):
    sequence = encoder(image, train=False)
    assert (sequence.num_prefix, sequence.num_content) == (num_prefix, 4)
    return sequence.x, encoder.pool(sequence)

  (x, pooled), variables = jax.eval_shape(
    lambda image: encoder.init_with_output(KEY, image, method=run), image
  )
  params = trees.flatten(nn.meta.unbox(variables["params"]))
  assert x.shape == (2, num_prefix + 4, 16)
  assert pooled.shape == (2, 16)
  assert ("stem/positions/table" in params) == (positions == "learned")
  assert ("cls" in params) == (pool == "cls")
  assert ("pooling/query" in params) == (pool == "map")


@pytest.mark.parametrize("positions", ["rotary", "none"])
def test_only_positions_tell_where_a_patch_is(image, positions, randomized):
  """Without, patches in another order are the same patches."""
  encoder = vit(
    image_size=6, patch_size=2, size=SIZE, positions=positions, registers=1
  )
  params = randomized(encoder, image, train=False)
  swapped = unpatchify(
    jnp.asarray(_cut(image)[:, ::-1], jnp.float32), (ROWS, COLUMNS), PATCH
  ).astype(jnp.uint8)
  got, other = (
    np.asarray(_encode(encoder, params, x).content) for x in (image, swapped)
  )
  away = np.abs(got[:, ::-1] - other).max()
  # Rotations, turned by 180 degrees, look the other way.
  assert away < 1e-4 if positions == "none" else away > 1e-2


def test_pictures_of_another_grid_than_the_learned_one_are_refused(image):
  encoder = vit(image_size=8, patch_size=2, size=SIZE)
  with pytest.raises(errors.UserError, match="3x3 patches.*positions of 4x4"):
    jax.eval_shape(lambda: encoder.init(KEY, image, train=False))
  free = vit(image_size=8, patch_size=2, size=SIZE, positions="sincos")
  jax.eval_shape(lambda: free.init(KEY, image, train=False))


def test_a_mask_of_other_patches_is_refused():
  vit(image_size=8, patch_size=2, image_grid=(4, 4))
  with pytest.raises(errors.UserError, match="of 2x2; the encoder's is 4x4"):
    vit(image_size=8, patch_size=2, image_grid=(2, 2))
