import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors, trees
from mmjax.core.sequence import Sequence
from mmjax.models.encoders.audio import audio
from mmjax.models.encoders.encoder import Encoder
from mmjax.models.encoders.text import text
from mmjax.models.encoders.video import video
from mmjax.models.encoders.vit import vit
from mmjax.models.layers.options import StackOptions
from mmjax.models.variants import Size

SIZE = Size(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
KEY = jax.random.key(0)


class Given(nn.Module):
  """A stem whose inputs are the tokens."""

  def __call__(self, inputs, *, mask=None, hidden=None, train=False):
    mask = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
    return Sequence(inputs, mask, num_content=inputs.shape[1])


@pytest.fixture(scope="module")
def tokens():
  rng = np.random.default_rng(2)
  x = jnp.asarray(rng.normal(size=(3, 4, 16)), jnp.float32)
  return x, jnp.ones((3, 4), bool).at[1, 2:].set(False)


def _encode(module, params, x, **kwargs):
  return jax.jit(
    lambda x: module.apply({"params": params}, x, train=False, **kwargs)
  )(x)


def test_an_encoder_is_its_stem_and_a_stack(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  for i in range(3):
    np.testing.assert_allclose(
      got.x[i],
      by_hand.stack(params["stack"], x[i], mask[i]),
      rtol=1e-4,
      atol=1e-5,
    )
  np.testing.assert_array_equal(got.mask, mask)
  assert (got.num_prefix, got.num_content) == (0, 4)


def test_cls_pooling_puts_a_learned_token_in_front(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE, pool_kind="cls")
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  assert (got.num_prefix, got.num_content) == (1, 4)
  np.testing.assert_array_equal(got.mask[:, 0], True)
  np.testing.assert_array_equal(got.content_mask, mask)
  for i in range(3):
    tokens_i = np.concatenate([params["cls"][0], x[i]])
    expected = by_hand.stack(params["stack"], tokens_i, np.asarray(got.mask[i]))
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
  pooled = module.apply({"params": params}, got, method="pool")
  np.testing.assert_array_equal(pooled, got.x[:, 0])


def test_padding_equals_slicing(tokens, randomized):
  x, mask = tokens
  module = Encoder(Given(), SIZE)
  params = randomized(module, x, train=False)
  whole = _encode(module, params, x, mask=mask)
  alone = _encode(module, params, x[1:2, :2])
  np.testing.assert_allclose(whole.x[1:2, :2], alone.x, rtol=1e-4, atol=1e-5)


def test_only_map_pooling_brings_parameters(tokens):
  x, _ = tokens

  def count(kind):
    module = Encoder(Given(), SIZE, pool_kind=kind)

    def run(module):
      return module.pool(module(x, train=False))

    return trees.num_params(
      jax.eval_shape(lambda: module.init(KEY, method=run))["params"]
    )

  assert count("cls") == count("mean") + 16
  # Query; attention; norm; feed-forward.
  assert count("map") == (
    count("mean") + 16 + 4 * (16 * 16 + 16) + 32 + 2 * 16 * 24 + 24 + 16
  )


def test_a_causal_token_sees_those_before_it_only(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE, causal=True)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  for i in range(3):
    rows = np.tril(np.ones((4, 4), bool)) & np.asarray(mask[i])
    expected = by_hand.stack(params["stack"], x[i], rows)
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)


def test_registers_stand_in_front_and_are_not_pooled(
  tokens, randomized, by_hand
):
  x, mask = tokens
  module = Encoder(Given(), SIZE, registers=2)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  assert (got.num_prefix, got.num_content) == (2, 4)
  for i in range(3):
    rows = np.concatenate([params["registers"][0], x[i]])
    seen = np.concatenate([[True, True], mask[i]])
    expected = by_hand.stack(params["stack"], rows, seen)
    np.testing.assert_allclose(got.x[i], expected, rtol=1e-4, atol=1e-5)
    pooled = module.apply({"params": params}, got, method="pool")[i]
    mean = expected[2:][np.asarray(mask[i])].mean(axis=0)
    np.testing.assert_allclose(pooled, mean, rtol=1e-4, atol=1e-5)


def test_rotary_positions_come_from_the_stem(tokens, randomized):
  x, _ = tokens

  class Placed(nn.Module):
    first: int = 0

    def __call__(self, inputs, *, mask=None, hidden=None, train=False):
      mask = jnp.ones(inputs.shape[:2], bool)
      place = self.first + jnp.arange(4, dtype=jnp.float32)[None, :, None]
      return Sequence(inputs, mask, coordinates=place, num_content=4)

  module = Encoder(Placed(), SIZE, rotary=True)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x).x
  plain = _encode(Encoder(Placed(), SIZE), params, x).x
  moved = _encode(Encoder(Placed(7), SIZE, rotary=True), params, x).x
  # Places count by their differences; reversed, tokens see others elsewhere.
  np.testing.assert_allclose(moved, got, rtol=1e-3, atol=1e-4)
  assert np.max(np.abs(got - plain)) > 1e-2
  swapped = _encode(module, params, x[:, ::-1]).x[:, ::-1]
  assert np.max(np.abs(got - swapped)) > 1e-2


def test_rotary_positions_need_a_stem_with_places(tokens):
  with pytest.raises(errors.UserError, match="Given gives no coordinates"):
    jax.eval_shape(
      lambda: Encoder(Given(), SIZE, rotary=True).init(
        KEY, tokens[0], train=False
      )
    )


@pytest.mark.parametrize("fields", [{}, dict(pool_kind="cls", registers=1)])
def test_what_stands_in_an_absent_place_changes_nothing(
  tokens, randomized, fields
):
  x, mask = tokens
  module = Encoder(Given(), SIZE, **fields)
  params = randomized(module, x, train=False)
  present = jnp.asarray([True, False, True])

  @jax.jit
  def run(params, x):
    def loss(params, x):
      out = module.apply(
        {"params": params}, x, mask=mask, present=present, train=False
      )
      counts = out.mask[:, :, None]
      return jnp.sum(jnp.where(counts, out.x, 0.0) ** 2), out

    (value, out), grads = jax.value_and_grad(
      loss, argnums=(0, 1), has_aux=True
    )(params, x)
    return value, grads, out

  value, grads, out = run(params, x)
  got, got_grads, _ = run(params, x.at[1].set(jnp.nan))
  assert not np.any(out.mask[1]) and np.all(out.mask[0])
  assert got == value
  jax.tree.map(np.testing.assert_array_equal, got_grads, grads)
  np.testing.assert_array_equal(grads[1][1], 0)


def test_an_unknown_pooling_is_refused_even_if_nobody_pools(tokens):
  with pytest.raises(errors.UserError, match="Did you mean 'mean'"):
    jax.eval_shape(
      lambda: Encoder(Given(), SIZE, pool_kind="meen").init(
        KEY, tokens[0], train=False
      )
    )


def _cut(made, inputs):
  """What an encoder cuts, and how many numbers it says that are."""
  return np.asarray(made.apply({}, inputs, method="cut")), made.patch_dim


def test_what_tokens_are_made_of_comes_in_their_order(rng):
  clip = rng.integers(0, 256, (1, 4, 4, 6, 3), dtype=np.uint8)
  size = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=8)
  made = video(
    video_size=4, num_frames=4, patch_size=2, tubelet_frames=2, size=size
  )
  got, dim = _cut(made, jnp.asarray(clip))
  expected = [
    clip[0, t : t + 2, y : y + 2, x : x + 2].reshape(-1)
    for t in (0, 2)
    for y in (0, 2)
    for x in (0, 2, 4)
  ]
  np.testing.assert_array_equal(got[0], expected)
  assert dim == len(expected[0])

  picture = clip[:, 0]
  made = vit(image_size=4, patch_size=2, size=size)
  got, dim = _cut(made, jnp.asarray(picture))
  expected = [
    picture[0, y : y + 2, x : x + 2].reshape(-1)
    for y in (0, 2)
    for x in (0, 2, 4)
  ]
  np.testing.assert_array_equal(got[0], expected)
  assert dim == len(expected[0])


def test_pieces_of_a_spectrogram_are_those_that_are_embedded(rng):
  made = audio(
    sample_rate=1000,
    num_samples=80,
    patch_size=(4, 2),
    log_mel=dict(num_mels=4, window_secs=0.03),
    size=dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=8),
  )
  wave = jnp.asarray(rng.uniform(-1, 1, (1, 80)), jnp.float32)
  got, dim = _cut(made, wave)
  mels = np.asarray(made.stem.log_mel(wave))[0]  # 8 frames, 4 mels.
  expected = [
    mels[t : t + 4, m : m + 2].reshape(-1) for t in (0, 4) for m in (0, 2)
  ]
  np.testing.assert_allclose(got[0], expected, rtol=1e-6)
  assert dim == 8


def test_a_text_is_not_cut():
  made = text(vocab_size=5, max_tokens=3, size="Ti")
  assert made.patch_dim == 0
  with pytest.raises(errors.UserError, match="TextStem does not cut"):
    made.apply({}, jnp.zeros((1, 3), jnp.int32), method="cut")


def test_fusions_get_what_there_is_before_the_norm(tokens, randomized, by_hand):
  x, mask = tokens
  module = Encoder(Given(), SIZE, fuse_before_norm=True)
  params = randomized(module, x, train=False)
  got = _encode(module, params, x, mask=mask)
  for i in range(3):
    seen = np.broadcast_to(mask[i], (4, 4))
    stream = by_hand.block(params["stack"]["layer_00"], x[i], seen)
    np.testing.assert_allclose(got.before_norm[i], stream, rtol=1e-4, atol=1e-5)
    normed = by_hand.layer_norm(params["last_norm"], stream)
    np.testing.assert_allclose(got.x[i], normed, rtol=1e-4, atol=1e-5)


def test_a_stack_without_a_last_norm_has_nothing_before_it(tokens):
  options = StackOptions(norm_position="post")
  module = Encoder(Given(), SIZE, options=options, fuse_before_norm=True)
  with pytest.raises(errors.UserError, match="norm_position='pre'"):
    module.init(KEY, tokens[0], train=False)
