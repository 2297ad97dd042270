import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, precision, trees
from mmjax.data.transforms.video import MaskVideo
from mmjax.models.encoders.video import TubeletStem, tubelets, video
from mmjax.models.layers.hidden import HIDDEN
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.positions import KINDS, rotary_angles
from mmjax.models.layers.transformer import Stack
from mmjax.models.variants import SIZES

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
T, P = 2, 2  # Frames and pixels of a tubelet.
TIMES, ROWS, COLUMNS = 3, 2, 2
PLACES, NUM = ROWS * COLUMNS, TIMES * ROWS * COLUMNS
SHAPE = dict(video_size=ROWS * P, num_frames=TIMES * T, patch_size=P)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def clip():
  rng = np.random.default_rng(3)
  shape = (2, TIMES * T, ROWS * P, COLUMNS * P, 3)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.uint8)


@pytest.fixture(scope="module")
def hidden():
  return jnp.asarray([[11, 0, 5, 6], [1, 2, 4, 3]], jnp.int32)


@pytest.fixture(scope="module", params=HIDDEN)
def setting(request, clip, randomized):
  encoder = video(**SHAPE, size=SIZE, hidden=request.param)
  return request.param, encoder, randomized(encoder, clip, train=False)


def _cut(clip):
  """Tubelets by slicing: time slowest, then rows, columns."""
  clip = np.asarray(clip)
  return np.stack(
    [
      clip[
        :, t * T : (t + 1) * T, r * P : (r + 1) * P, c * P : (c + 1) * P
      ].reshape(len(clip), -1)
      for t in range(clip.shape[1] // T)
      for r in range(clip.shape[2] // P)
      for c in range(clip.shape[3] // P)
    ],
    axis=1,
  )


def _tokens(params, clip, by_hand):
  """Embedded tubelets without positions, and the table of positions."""
  x = by_hand.linear(params["stem"]["patches"], _cut(clip) / 127.5 - 1.0)
  return x, np.asarray(params["stem"]["positions"]["table"])


@functools.partial(jax.jit, static_argnums=0)
def _encode(encoder, params, clip, hidden=None, mask=None):
  return encoder.apply(
    {"params": params}, clip, hidden=hidden, mask=mask, train=False
  )


def test_tubelets_are_cut_by_time_then_row_then_column(rng):
  clip = rng.integers(0, 256, (2, 6, 4, 8, 3)).astype(np.uint8)
  np.testing.assert_array_equal(tubelets(jnp.asarray(clip), T, P), _cut(clip))


def test_tubelets_that_do_not_tile_are_refused():
  with pytest.raises(errors.UserError, match="5 frames of 4x4 .* 2 frames of"):
    tubelets(jnp.zeros((1, 5, 4, 4, 3)), 2, 2)
  with pytest.raises(errors.UserError, match="video_size=5 .* patch_size=2"):
    video(video_size=5, num_frames=2, patch_size=2)
  with pytest.raises(errors.UserError, match="num_frames=3 .*frames=2"):
    video(video_size=4, num_frames=3, patch_size=2)


def test_a_clip_is_embedded_with_positions_then_mixed(setting, clip, by_hand):
  _, encoder, params = setting
  got = _encode(encoder, params, clip)
  x, positions = _tokens(params, clip, by_hand)
  for i in range(2):
    expected = by_hand.stack(
      params["stack"], x[i] + positions, np.ones(NUM, bool)
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  assert got.num_content == NUM and got.positions is None
  assert np.all(got.mask)


def test_hidden_tubelets_are_replaced_or_dropped(
  setting, clip, hidden, by_hand
):
  how, encoder, params = setting
  got = _encode(encoder, params, clip, hidden)
  x, positions = _tokens(params, clip, by_hand)
  for i in range(2):
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


def test_pixels_of_hidden_tubelets_do_not_matter(setting, clip, hidden):
  _, encoder, params = setting
  other = np.array(clip)
  for i in range(2):
    for index in np.asarray(hidden[i]):
      t, r, c = np.unravel_index(index, (TIMES, ROWS, COLUMNS))
      other[
        i, t * T : (t + 1) * T, r * P : (r + 1) * P, c * P : (c + 1) * P
      ] ^= 9
  np.testing.assert_array_equal(
    _encode(encoder, params, clip, hidden).x,
    _encode(encoder, params, jnp.asarray(other), hidden).x,
  )


def test_dropping_keeps_mask_and_places_of_the_visible(clip, hidden):
  mask = np.ones((2, NUM), bool)
  mask[:, 7] = False
  stem = TubeletStem(T, P, 16, "drop")

  @jax.jit
  def run(clip, mask, hidden):
    return stem.init_with_output(KEY, clip, mask=mask, hidden=hidden)[0]

  got = run(clip, jnp.asarray(mask), hidden)
  places = [
    (t, r, c) for t in range(TIMES) for r in range(ROWS) for c in range(COLUMNS)
  ]
  for i in range(2):
    visible = np.setdiff1d(np.arange(NUM), hidden[i])
    np.testing.assert_array_equal(got.mask[i], mask[i, visible])
    np.testing.assert_array_equal(
      got.coordinates[i], np.array(places, np.float32)[visible]
    )


def test_statistics_of_the_pixels_are_by_channel(clip):
  mean, std = (0.8, 0.5, 0.2), (0.1, 0.25, 0.5)
  stem = TubeletStem(T, P, 4, pixel_mean=mean, pixel_std=std, positions="none")
  kernel = jnp.eye(T * P * P * 3, 4)  # Shows the first 4 numbers.
  params = {
    "patches": {"kernel": kernel, "bias": jnp.zeros(4)},
    "mask_token": jnp.zeros(4),
  }
  got = stem.apply({"params": params}, clip).x
  x = (np.asarray(clip) / 255.0 - mean) / std
  np.testing.assert_allclose(got, _cut(x)[..., :4], rtol=1e-4, atol=1e-4)


def test_a_factorised_encoder_mixes_each_time_then_each_place(
  clip, randomized, by_hand
):
  encoder = video(
    **SHAPE, size=SIZE, factorised=True, time_layers=2, pool="cls", registers=1
  )
  params = randomized(encoder, clip, train=False)
  assert {k for k in params["time_stack"] if "layer" in k} == {
    "layer_00",
    "layer_01",
  }
  mask = np.ones((2, TIMES, PLACES), bool)
  mask[0, 1] = False  # A time of which nothing counts.
  mask[0, 2, 3] = mask[1, 0, :2] = False
  got = _encode(encoder, params, clip, mask=jnp.asarray(mask.reshape(2, NUM)))
  x, positions = _tokens(params, clip, by_hand)
  special = np.concatenate([params["cls"][0], params["registers"][0]])
  for i in range(2):
    content = (x[i] + positions).reshape(TIMES, PLACES, -1)
    mixed, counts = [], []
    for t in range(TIMES):
      here = np.concatenate([np.repeat(mask[i, t].any(), 2), mask[i, t]])
      tokens = np.concatenate([special, content[t]])
      mixed.append(by_hand.stack(params["stack"], tokens, here))
      counts.append(here)
    mixed, counts = np.array(mixed), np.array(counts)
    for place in range(2 + PLACES):
      mixed[:, place] = by_hand.stack(
        params["time_stack"], mixed[:, place], counts[:, place]
      )
    expected = np.concatenate(
      [mixed[counts[:, 0], :2].mean(axis=0), mixed[:, 2:].reshape(NUM, -1)]
    )
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-4)
  assert (got.num_prefix, got.num_content) == (2, NUM)
  np.testing.assert_array_equal(got.content_mask, mask.reshape(2, NUM))
  # The pooled vector is the special token's mean.
  pooled = encoder.apply({"params": params}, got, method="pool")
  np.testing.assert_array_equal(pooled, got.x[:, 0])


def test_an_absent_clip_gives_finite_numbers_that_do_not_count(
  clip, randomized
):
  encoder = video(**SHAPE, size=SIZE, factorised=True, pool="cls")
  params = randomized(encoder, clip, train=False)
  present = jnp.asarray([True, False])

  @jax.jit
  @jax.value_and_grad
  def loss(params, clip):
    out = encoder.apply({"params": params}, clip, present=present, train=False)
    return jnp.sum(jnp.where(out.mask[..., None], out.x**2, 0.0))

  value, gradient = loss(params, clip)
  again, _ = loss(params, clip.at[1].set(77))
  assert value == again and value > 0
  assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize("factorised", [False, True])
def test_rotary_positions_turn_by_time_row_and_column(
  clip, randomized, by_hand, factorised
):
  encoder = video(
    **SHAPE,
    size=SIZE,
    positions="rotary",
    registers=1,
    factorised=factorised,
  )
  params = randomized(encoder, clip, train=False)
  assert "positions" not in params["stem"]
  x = by_hand.linear(params["stem"]["patches"], _cut(clip) / 127.5 - 1.0)
  stack = Stack(1, 2, 24)
  # A special token is not turned: it is where coordinates are 0.
  special, nowhere = params["registers"], np.zeros((1, 3), np.float32)
  places = [(0, r, c) for r in range(ROWS) for c in range(COLUMNS)]
  places = np.concatenate([nowhere, np.array(places, np.float32)])

  @jax.jit
  def run(x, mixers):
    def mix(name, tokens, where):
      return stack.apply(
        {"params": mixers[name]},
        tokens,
        mask=jnp.ones((len(tokens), 1, tokens.shape[1]), bool),
        train=False,
        angles=rotary_angles(jnp.asarray(where)[None], 8),
      )

    if not factorised:
      where = [places[1:] + [t, 0, 0] for t in range(TIMES)]
      where = np.concatenate([nowhere, *where]).astype(np.float32)
      return mix("stack", jnp.concatenate([special, x], axis=1), where)[0]
    special_t = jnp.repeat(special, TIMES, axis=0)
    slices = x.reshape(TIMES, PLACES, -1)
    mixed = mix(
      "stack", jnp.concatenate([special_t, slices], axis=1), places[:, 1:]
    )
    times = np.arange(TIMES, dtype=np.float32)[:, None]
    columns = mix("time_stack", mixed.transpose(1, 0, 2), times)
    content = columns[1:].transpose(1, 0, 2).reshape(NUM, -1)
    return jnp.concatenate([columns[:1].mean(axis=1), content])

  got = _encode(encoder, params, clip[:1]).x[0]
  expected = run(jnp.asarray(x[:1], jnp.float32), params)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_training_turns_dropout_on_in_space_and_time(clip, randomized):
  encoder = video(
    **SHAPE, size=SIZE, factorised=True, stack=dict(dropout_rate=0.3)
  )
  params = randomized(encoder, clip, train=False)

  @jax.jit
  def run(params, key):
    out = encoder.apply(
      {"params": params}, clip, train=True, rngs={"dropout": key}
    )
    return out.x

  other = jax.random.key(1)
  first = run(params, KEY)
  np.testing.assert_array_equal(first, run(params, KEY))
  assert np.any(np.asarray(first) != np.asarray(run(params, other)))
  for name in ("stack", "time_stack"):
    # With branches of zeros in one stack, noise is the other's alone.
    layer = jax.tree.map(jnp.zeros_like, params[name])
    layer["norm"] = params[name]["norm"]
    still = {**params, name: layer}
    assert np.any(np.asarray(run(still, KEY)) != np.asarray(run(still, other)))


@pytest.mark.parametrize("factorised", [False, True])
@pytest.mark.parametrize("pool", ["cls", "mean", "map"])
@pytest.mark.parametrize("positions", KINDS)
def test_every_option_has_the_parameters_it_needs(
  clip, hidden, factorised, pool, positions
):
  encoder = video(
    **SHAPE, size=SIZE, positions=positions, pool=pool, factorised=factorised
  )

  def run(module):
    return module.pool(module(clip, hidden=hidden, train=False))

  out, variables = jax.eval_shape(
    lambda: encoder.init_with_output(KEY, method=run)
  )
  assert out.shape == (2, 16)
  block = 4 * (16 * 16 + 16) + 2 * 32 + 2 * 16 * 24 + 24 + 16
  expected = (T * P * P * 3 + 1) * 16 + 16  # Tubelets, mask token.
  expected += (block + 32) * (2 if factorised else 1)
  expected += {"learned": NUM * 16}.get(positions, 0)
  attention = 16 + 4 * (16 * 16 + 16) + 32 + 2 * 16 * 24 + 24 + 16
  expected += {"cls": 16, "map": attention}.get(pool, 0)
  assert trees.num_params(variables["params"]) == expected


# ViViT-B/16x2 with 400 classes at 224 pixels and 32 frames; Arnab et al. 2021,
# table 3, in millions: spatio-temporal, and the factorised encoder.
PUBLISHED = {False: 88.9, True: 115.1}


@pytest.mark.parametrize("factorised", PUBLISHED)
def test_number_of_parameters_as_published(factorised):
  encoder = video(
    video_size=224,
    num_frames=32,
    patch_size=16,
    pool="cls",
    factorised=factorised,
    time_layers=4 if factorised else 0,
  )
  clip = jax.ShapeDtypeStruct((1, 32, 224, 224, 3), jnp.uint8)
  got = trees.num_params(
    jax.eval_shape(lambda clip: encoder.init(KEY, clip, train=False), clip)
  )
  d = SIZES["B"].embed_dim
  # Theirs: a head, a position of CLS, no mask token. The factorised one has a
  # table of places and one of times, each with a CLS; ours one of tubelets.
  theirs = got + 400 * (d + 1) + d - d
  if factorised:
    theirs += d * ((196 + 1) + (16 + 1) + 1 - 16 * 196 - 1)
  assert theirs / 1e6 == pytest.approx(PUBLISHED[factorised], abs=0.1)


def test_parameters_carry_axis_names_and_stay_float32(clip):
  encoder = video(
    **SHAPE,
    size=SIZE,
    factorised=True,
    precision=precision.POLICIES["bfloat16"],
  )

  def run():
    out, variables = encoder.init_with_output(KEY, clip, train=False)
    return out.x, variables

  x, variables = jax.eval_shape(run)
  assert x.dtype == jnp.bfloat16
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))
  stem = variables["params"]["stem"]
  assert stem["patches"]["kernel"].names == (axes.PATCH, axes.EMBED)
  assert stem["positions"]["table"].names == (axes.POSITION, axes.EMBED)
  assert stem["mask_token"].names == (axes.EMBED,)


def test_options_of_the_stack_reach_both_stacks():
  encoder = video(
    **SHAPE, size=SIZE, factorised=True, stack=dict(norm="rms_norm")
  )
  assert encoder.options == StackOptions(norm="rms_norm")
  assert (encoder.num_times, encoder.time_layers) == (TIMES, 1)


@pytest.mark.parametrize(
  "fields, message",
  [
    (dict(hidden="drop", factorised=True), "set hidden='replace'"),
    (dict(time_layers=2), "time_layers=2 is of the factorised encoder"),
    (dict(size="XXL"), "Unknown size 'XXL'"),
    (
      dict(video_grid=(TIMES, ROWS, COLUMNS + 1)),
      r"grid of \(3, 2, 3\), times.*the encoder has \(3, 2, 2\)",
    ),
  ],
)
def test_options_that_do_not_go_together_are_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    video(**{**SHAPE, "size": SIZE, **fields})


def test_tubelets_that_the_data_hide_have_to_be_those_of_the_encoder():
  mask = MaskVideo(grid=(TIMES, ROWS, COLUMNS), rate=0.5)
  video(**SHAPE, size=SIZE, **mask.facts())


def test_an_unknown_way_to_hide_is_refused_with_the_nearest_name(clip):
  with pytest.raises(errors.UserError, match="Did you mean 'drop'"):
    jax.eval_shape(lambda: TubeletStem(T, P, 4, "dropped").init(KEY, clip))
