import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.models.encoders.audio import audio
from mmjax.models.layers.log_mel import LogMel, LogMelOptions
from mmjax.models.visual_tokenizer import VISUAL_TOKENIZERS

MAKE = VISUAL_TOKENIZERS["random_projection"]
MEL = dict(num_mels=6, window_secs=0.02, hop_secs=0.01, fft_length=64)
RATE, SAMPLES = 1000, 95


def _codes(made, *inputs):
  """Codes, compiled once."""
  run = jax.jit(lambda *inputs: made.apply({}, *inputs, method="codes"))
  return np.asarray(run(*inputs))


def _standard(rows):
  """Each column to mean 0, variance 1."""
  rows = np.asarray(rows, np.float64)
  return (rows - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)


def _nearest(patch, seed, code_dim, num_codes):
  """The closest code on the unit sphere, by a search over all."""
  rng = np.random.RandomState(seed)
  limit = np.sqrt(6 / (len(patch) + code_dim))
  projection = rng.uniform(-limit, limit, (len(patch), code_dim))
  book = rng.standard_normal((num_codes, code_dim))
  vector = patch @ projection
  vector = vector / np.linalg.norm(vector)
  return np.argmin(
    [np.linalg.norm(vector - c / np.linalg.norm(c)) for c in book]
  )


def test_codes_of_pictures_are_nearest_to_projected_patches(rng):
  image = rng.integers(0, 256, (2, 6, 6, 3)).astype(np.uint8)
  made = MAKE(patch_size=3, num_codes=50, code_dim=4, seed=7)
  got = _codes(made, image)
  assert got.shape == (2, 4) and len(np.unique(got)) > 4
  for b in range(2):
    pixels = _standard(image[b].reshape(-1, 3) / 255).reshape(6, 6, 3)
    for place, (row, column) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
      patch = pixels[row : row + 3, column : column + 3].reshape(-1)
      assert got[b, place] == _nearest(patch, 7, 4, 50)


def test_codes_of_clips_are_those_of_tubelets_by_time(rng):
  clip = rng.integers(0, 256, (1, 4, 2, 4, 3)).astype(np.uint8)
  made = MAKE(patch_size=2, num_codes=50, code_dim=4, tubelet_frames=2)
  got = _codes(made, clip)[0]
  pixels = _standard(clip[0].reshape(-1, 3) / 255).reshape(4, 2, 4, 3)
  places = [(0, 0), (0, 2), (2, 0), (2, 2)]  # Time, column.
  for place, (time, column) in enumerate(places):
    cut = pixels[time : time + 2, :, column : column + 2].reshape(-1)
    assert got[place] == _nearest(cut, 0, 4, 50)


def test_codes_of_recordings_go_with_the_encoders_tokens(rng):
  wave = rng.uniform(-1, 1, (2, SAMPLES)).astype(np.float32)
  mask = np.ones((2, SAMPLES), bool)
  mask[1, 60:] = False
  made = MAKE(
    patch_size=(4, 3),
    num_codes=50,
    code_dim=4,
    log_mel=MEL,
    sample_rate=RATE,
  )
  got = _codes(made, wave, mask)
  encoder = audio(
    sample_rate=RATE,
    num_samples=SAMPLES,
    patch_size=(4, 3),
    log_mel=MEL,
    size=dict(embed_dim=4, num_layers=1, num_heads=1, mlp_dim=4),
  )
  grid = encoder.stem.grid(SAMPLES)
  assert got.shape == (2, grid[0] * grid[1]) == (2, 6)
  mel = LogMel(RATE, LogMelOptions(**MEL))
  mels = np.asarray(jax.jit(mel)(wave, mask))  # b 9 6
  for b, real in enumerate((9, 6)):
    padded = np.zeros((12, 6))
    padded[:real] = _standard(mels[b, :real])
    tokens = [(t, m) for t in (0, 4, 8) for m in (0, 3)]
    for place, (time, low) in enumerate(tokens):
      if time >= real:
        continue  # Nothing counts there.
      patch = padded[time : time + 4, low : low + 3].reshape(-1)
      assert got[b, place] == _nearest(patch, 0, 4, 50)
  # What stands where the mask is False changes nothing.
  loud = np.where(mask, wave, 1.0).astype(np.float32)
  np.testing.assert_array_equal(_codes(made, loud, mask), got)


def test_the_seed_decides_and_nothing_is_stored(rng):
  image = rng.integers(0, 256, (4, 8, 8, 3)).astype(np.uint8)

  def codes(seed):
    made = MAKE(patch_size=2, seed=seed)
    return _codes(made, image), made.identity

  assert np.mean(codes(0)[0] == codes(1)[0]) < 0.1
  assert codes(0)[1] == codes(0)[1] != codes(1)[1]
  assert MAKE(patch_size=2).num_codes == 8192
  assert not MAKE(patch_size=2).learned


def test_bad_sizes_and_inputs_are_refused():
  with pytest.raises(errors.UserError, match="num_codes=0.*at least 1"):
    MAKE(patch_size=2, num_codes=0)
  bag = jnp.zeros((1, 4, 12), jnp.uint8)
  with pytest.raises(errors.UserError, match="3 axes"):
    MAKE(patch_size=2).apply({}, bag, method="codes")
  with pytest.raises(errors.UserError, match="square"):
    MAKE(patch_size=(2, 4)).apply(
      {}, jnp.zeros((1, 4, 4, 3), jnp.uint8), method="codes"
    )
  with pytest.raises(errors.UserError, match="sample rate"):
    MAKE(patch_size=2).apply({}, jnp.zeros((1, 4)), method="codes")
