import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from mmjax.core import errors, trees
from mmjax.models.visual_tokenizer import VISUAL_TOKENIZERS
from mmjax.models.visual_tokenizer.fsq import FiniteScalars, bound

LEVELS = (8, 5, 3, 4)
MODULE = FiniteScalars(LEVELS)
QUANTIZE = jax.jit(lambda z: MODULE.apply({}, z, train=True))
BOUND = jax.jit(lambda z: bound(z, LEVELS))


def _by_hand(z):
  """Whole numbers, index, vector of one vector; a loop over channels."""
  index, place, vector, wholes = 0, 1, [], []
  for value, number in zip(z, LEVELS, strict=True):
    half = (number - 1) / 2
    offset = 0.5 if number % 2 == 0 else 0.0
    shift = np.arctanh(offset / half)
    whole = np.round(half * np.tanh(value + shift) - offset)
    digit = int(whole) + number // 2
    assert 0 <= digit < number
    index += place * digit
    place *= number
    wholes.append(whole)
    vector.append(whole / (number // 2))
  return wholes, index, vector


def test_codes_and_vectors_are_those_of_a_loop(rng):
  z = (3 * rng.normal(size=(2, 40, 4))).astype(np.float32)
  got = QUANTIZE(z)
  codes, vectors = np.asarray(got.codes), np.asarray(got.vectors)
  for b, n in np.ndindex(2, 40):
    _, index, vector = _by_hand(z[b, n].astype(np.float64))
    assert codes[b, n] == index
    np.testing.assert_allclose(vectors[b, n], vector, atol=1e-6)
  assert not np.any(got.commitment) and got.restarted == 0


def test_every_combination_of_levels_is_reached_and_no_other():
  # A fine grid over each channel alone reaches all of its levels.
  line = np.linspace(-9, 9, 2001)[:, None] * np.ones((1, 4))
  whole = np.round(np.asarray(BOUND(line[None].astype(np.float32))))[0]
  for channel, number in enumerate(LEVELS):
    low = -(number // 2)
    assert set(whole[:, channel]) == set(range(low, low + number))
  # All codes are different vectors, and the way back is the way there.
  codes = np.arange(MODULE.num_codes)[None]
  look_up = jax.jit(lambda codes: MODULE.apply({}, codes, method="lookup"))
  vectors = np.asarray(look_up(codes))[0]
  assert len(np.unique(vectors, axis=0)) == MODULE.num_codes == 480
  assert np.abs(vectors).max() == 1
  digits = np.round(vectors * (np.asarray(LEVELS) // 2))
  # Far enough inside each level to come back as itself.
  half = (np.asarray(LEVELS) - 1) / 2
  offset = np.asarray([0.5, 0, 0, 0.5])
  inside = np.clip((digits + offset) / half, -0.999, 0.999)
  z = np.arctanh(inside) - np.arctanh(offset / half)
  back = QUANTIZE(z[None].astype(np.float32))
  np.testing.assert_array_equal(back.codes, codes)


@pytest.mark.parametrize(
  "levels, count",  # The paper's table 1.
  [
    ((8, 6, 5), 240),
    ((8, 5, 5, 5), 1000),
    ((7, 5, 5, 5, 5), 4375),
    ((8, 8, 8, 6, 5), 15360),
    ((8, 8, 8, 5, 5, 5), 64000),
  ],
)
def test_the_papers_levels_give_its_numbers_of_codes(levels, count):
  assert FiniteScalars(levels).num_codes == count


def test_zero_stays_zero():
  zero = np.zeros((1, 1, 4), np.float32)
  np.testing.assert_allclose(BOUND(zero), zero, atol=1e-6)
  assert not np.any(QUANTIZE(zero).vectors)


def test_gradients_are_those_of_the_bounded_channels(rng):
  z = rng.normal(size=(1, 6, 4)).astype(np.float32)
  grad = jax.jit(jax.grad(lambda z: jnp.sum(QUANTIZE(z).vectors)))(z)
  for n, c in np.ndindex(6, 4):
    number = LEVELS[c]
    half = (number - 1) / 2
    shift = np.arctanh((0.5 if number % 2 == 0 else 0) / half)
    slope = half * (1 - np.tanh(float(z[0, n, c]) + shift) ** 2)
    np.testing.assert_allclose(
      grad[0, n, c], slope / (number // 2), rtol=1e-4, atol=1e-6
    )


def test_the_registry_makes_a_tokenizer_without_a_codebook():
  size = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=16)
  made = VISUAL_TOKENIZERS["fsq"](
    image_size=4,
    patch_size=2,
    levels=(8, 5, 5),
    encoder_size=size,
    decoder_size=size,
  )
  image = jnp.zeros((2, 4, 4, 3), jnp.uint8)
  shapes = jax.eval_shape(
    lambda: made.init(jax.random.key(0), image, train=True)
  )
  assert set(shapes) == {"params"}
  params = trees.flatten(nn.meta.unbox(shapes["params"]))
  assert params["to_code/kernel"].shape == (16, 3)
  assert made.num_codes == 200


def test_other_levels_are_another_tokenizer_though_parameters_fit():
  assert FiniteScalars((8, 5)).identity != FiniteScalars((5, 8)).identity


@pytest.mark.parametrize("levels", [(), (8, 2)])
def test_too_few_levels_are_refused(levels):
  with pytest.raises(errors.UserError, match="levels=.*at least 3"):
    VISUAL_TOKENIZERS["fsq"](image_size=4, patch_size=2, levels=levels)
