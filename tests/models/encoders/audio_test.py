import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmjax.core import axes, errors, precision, trees
from mmjax.data.transforms.audio import MaskAudio
from mmjax.models.encoders.audio import (
  CONV_STRIDE,
  KINDS,
  AudioStem,
  audio,
)
from mmjax.models.layers import pooling, positions
from mmjax.models.layers.hidden import HIDDEN
from mmjax.models.layers.log_mel import LogMel, LogMelOptions
from mmjax.models.layers.spec_augment import SpecAugmentOptions

SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=24)
RATE, HOP, MELS, SAMPLES, FRAMES = 1000, 4, 4, 64, 16
PATCH = (4, 2)
# Windows that do not overlap, so that a frame is a matter of its own samples.
LOG_MEL = dict(
  num_mels=MELS,
  window_secs=0.004,
  hop_secs=0.004,
  fft_length=16,
  centred=False,
  normalize="statistics",
  std=3.0,
)
KEY = jax.random.key(0)


def _made(stem="patches", **changes):
  fields = dict(
    sample_rate=RATE,
    num_samples=SAMPLES,
    size=SIZE,
    patch_size=PATCH,
    log_mel=LOG_MEL,
    stem=stem,
  )
  return audio(**{**fields, **changes})


@pytest.fixture(scope="module")
def waveform():
  rng = np.random.default_rng(3)
  return jnp.asarray(rng.uniform(-1, 1, (2, SAMPLES)), jnp.float32)


@pytest.fixture(scope="module")
def mels(waveform):
  """The spectrogram, which has tests of its own."""
  return np.asarray(LogMel(RATE, LogMelOptions(**LOG_MEL))(waveform))


def _stem(stem, params, waveform, **kwargs):
  return jax.jit(
    lambda x: stem.apply({"params": params}, x, **kwargs),
  )(waveform)


def _patches(mels, patch_size, stride):
  """Patches by slicing, time slowest, with zeros where the mels end."""
  out = []
  (height, width), (down, along) = patch_size, stride
  padded = np.zeros((mels.shape[0] + height, mels.shape[1] + width))
  padded[: mels.shape[0], : mels.shape[1]] = mels
  top = 0
  while True:
    left = 0
    while True:
      patch = padded[top : top + height, left : left + width]
      # Within a patch too, all mels of one frame, then of the next.
      out.append([patch[i, j] for i in range(height) for j in range(width)])
      if left + width >= mels.shape[1]:
        break
      left += along
    if top + height >= mels.shape[0]:
      return np.array(out)
    top += down


@pytest.mark.parametrize(
  "patch_size, stride, num",
  [(PATCH, PATCH, 8), ((4, 3), (3, 2), 5 * 2), ((5, 4), (5, 4), 4)],
)
def test_patches_are_embedded_with_positions(
  waveform, mels, randomized, by_hand, patch_size, stride, num
):
  stem = _made(patch_size=patch_size, stride=stride).stem
  params = randomized(stem, waveform)
  got = _stem(stem, params, waveform)
  assert got.x.shape == (2, num, 16) and got.num_content == num
  assert np.all(got.mask)
  for i in range(2):
    patches = _patches(mels[i], patch_size, stride)
    want = by_hand.linear(params["patches"], patches)
    want += np.asarray(params["positions"]["table"])
    np.testing.assert_allclose(got.x[i], want, rtol=1e-4, atol=1e-5)


def _conv(params, x, stride):
  """A convolution of width 3 with GELU, tap by tap; x is frames channels."""
  kernel = np.asarray(params["kernel"], np.float64)
  kernel = kernel.reshape(3, x.shape[1], -1)  # As torch, but turned around.
  out = []
  for centre in range(0, len(x), stride):
    y = np.asarray(params["bias"], np.float64)
    for tap in range(3):
      frame = centre + tap - 1
      if 0 <= frame < len(x):
        y = y + x[frame] @ kernel[tap]
    out.append(y)
  gelu = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
  return gelu(np.array(out))


def test_convolutions_are_those_of_whisper(waveform, mels, randomized):
  stem = _made("conv", positions="sincos").stem
  params = randomized(stem, waveform)
  got = _stem(stem, params, waveform)
  assert got.x.shape == (2, FRAMES // CONV_STRIDE, 16)
  for i in range(2):
    x = _conv(params["conv_0"], mels[i].astype(np.float64), 1)
    x = _conv(params["conv_1"], x, 2)
    want = x + positions.sincos_1d(len(x), 16)
    np.testing.assert_allclose(got.x[i], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(waveform, randomized, by_hand, kind):
  """10 of 16 frames: the third column of patches is half real."""
  encoder = _made(kind, pool="map")
  params = randomized(encoder, waveform, train=False, method=_pooled)
  real = 10 * HOP
  mask = jnp.broadcast_to(jnp.arange(SAMPLES)[None] < real, waveform.shape)
  junk = jnp.where(mask, waveform, jnp.nan)
  run = jax.jit(
    lambda x, mask: encoder.apply(
      {"params": params}, x, mask=mask, train=False, method=_pooled
    )
  )
  sequence, pooled = run(junk, mask)
  short, alone = run(waveform[:, :real], None)
  num = short.x.shape[1]
  assert num == (6 if kind == "patches" else 5)
  np.testing.assert_array_equal(
    sequence.mask, np.broadcast_to(np.arange(8) < num, (2, 8))
  )
  np.testing.assert_allclose(sequence.x[:, :num], short.x, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(pooled, alone, rtol=1e-4, atol=1e-5)


def _pooled(encoder, *args, **kwargs):
  sequence = encoder(*args, **kwargs)
  return sequence, encoder.pool(sequence)


@pytest.mark.parametrize("how", HIDDEN)
@pytest.mark.parametrize("kind", KINDS)
def test_hidden_tokens_are_replaced_or_dropped_and_not_heard(
  waveform, randomized, kind, how
):
  stem = _made(kind, hidden=how).stem
  params = randomized(stem, waveform)
  # Columns of 4 frames and 2 rows, or tokens of 2 frames: in each, samples
  # 16 to 31 are nowhere but in what is hidden.
  hidden = jnp.asarray([[2, 3, 6], [3, 0, 2]], jnp.int32)
  other = waveform.at[:, 16:24].set(0.1)
  if kind == "patches":
    other = other.at[:, 24:32].set(-0.3)
  apply = jax.jit(
    lambda x, hidden: stem.apply({"params": params}, x, hidden=hidden)
  )
  got = apply(waveform, hidden)
  np.testing.assert_array_equal(got.x, apply(other, hidden).x)
  whole = apply(waveform, None)
  table = np.asarray(params["positions"]["table"])
  for i in range(2):
    visible = np.setdiff1d(np.arange(8), hidden[i])
    if how == "drop":
      np.testing.assert_array_equal(got.positions[i], visible)
      np.testing.assert_array_equal(
        got.coordinates[i], np.asarray(whole.coordinates[0])[visible]
      )
      kept = got.x[i]
    else:
      for j in np.asarray(hidden[i]):
        np.testing.assert_allclose(
          got.x[i, j], params["mask_token"] + table[j], rtol=1e-5
        )
      kept = got.x[i][visible]
    if kind == "patches":
      np.testing.assert_allclose(
        kept, whole.x[i][visible], rtol=1e-5, atol=1e-6
      )
    else:  # Convolutions miss what is hidden beside a token.
      assert np.abs(kept - whole.x[i][visible]).max() > 0.1
  assert got.num_content == 8


def test_hidden_patches_must_not_overlap(waveform):
  stem = _made(stride=(2, 2)).stem
  hidden = jnp.zeros((2, 1), jnp.int32)
  with pytest.raises(errors.UserError, match="overlap"):
    jax.eval_shape(lambda: stem.init(KEY, waveform, hidden=hidden))


@pytest.mark.parametrize("kind", KINDS)
def test_spec_augment_in_training_only(waveform, mels, randomized, kind):
  options = SpecAugmentOptions(
    time_masks=1, max_frames=8, mel_masks=1, max_mels=1
  )
  stem = _made(kind, spec_augment=options).stem
  params = randomized(stem, waveform)
  plain = _stem(_made(kind).stem, params, waveform).x
  np.testing.assert_array_equal(_stem(stem, params, waveform).x, plain)
  run = jax.jit(
    lambda key: (
      stem.apply(
        {"params": params}, waveform, train=True, rngs={"dropout": key}
      ).x
    )
  )
  np.testing.assert_array_equal(run(KEY), run(KEY))
  assert np.any(np.asarray(run(KEY)) != np.asarray(plain))
  assert np.any(np.asarray(run(KEY)) != np.asarray(run(jax.random.key(1))))


@pytest.mark.parametrize("pool", pooling.KINDS)
@pytest.mark.parametrize("kind", positions.KINDS)
@pytest.mark.parametrize("stem", KINDS)
def test_every_stem_goes_with_all_positions_and_poolings(
  waveform, stem, kind, pool
):
  encoder = _made(stem, positions=kind, pool=pool, registers=1)

  def run(audio):
    (sequence, pooled), variables = encoder.init_with_output(
      KEY, audio, train=False, method=_pooled
    )
    return sequence.x, sequence.coordinates, pooled, variables

  x, coordinates, pooled, variables = jax.eval_shape(run, waveform)
  assert pooled.shape == (2, 32 if pool == "cls_mean" else 16)
  with_cls = pool in pooling.WITH_CLS
  assert x.shape == (2, 1 + with_cls + 8, 16)
  assert coordinates.shape == (1, 8, 2 if stem == "patches" else 1)
  params = variables["params"]
  assert ("positions" in params["stem"]) == (kind == "learned")
  assert ("cls" in params) == with_cls
  assert ("pooling" in params) == (pool == "map")


@pytest.mark.parametrize("stem", KINDS)
def test_rotary_positions_tell_places_apart(waveform, randomized, stem):
  encoder = _made(stem, positions="rotary", pool="mean")
  params = randomized(encoder, waveform, train=False)
  run = jax.jit(lambda x: encoder.apply({"params": params}, x, train=False).x)
  # Two halves of the recording change places: 8 frames, 4 tokens each.
  turned = jnp.roll(waveform, SAMPLES // 2, axis=1)
  want = jnp.roll(run(waveform), 4, axis=1)
  assert np.abs(run(turned) - want).max() > 1e-3


def test_parameters_carry_axis_names(waveform):
  def names(stem):
    boxed = jax.eval_shape(lambda: stem.init(KEY, waveform))["params"]
    return {
      name: value["kernel"].names if isinstance(value, dict) else value.names
      for name, value in boxed.items()
      if name != "positions"
    }

  token = {"mask_token": (axes.EMBED,)}
  assert names(_made().stem) == token | {"patches": (axes.PATCH, axes.EMBED)}
  assert names(_made("conv").stem) == token | {
    "conv_0": (axes.PATCH, axes.MLP),
    "conv_1": (axes.MLP, axes.EMBED),
  }


@pytest.mark.parametrize("stem", KINDS)
def test_bfloat16_activations_over_float32_parameters(waveform, stem):
  encoder = _made(stem, precision=precision.POLICIES["bfloat16"])

  def run(audio):
    out, variables = encoder.init_with_output(KEY, audio, train=False)
    return out.x, variables

  x, variables = jax.eval_shape(run, waveform)
  assert x.dtype == jnp.bfloat16
  assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(variables))


def _count(encoder, num_samples):
  shape = jax.ShapeDtypeStruct((1, num_samples), jnp.float32)
  return trees.num_params(
    jax.eval_shape(lambda x: encoder.init(KEY, x, train=False), shape)
  )


def test_parameters_of_the_encoder_of_whisper_tiny():
  """transformers counts 8,208,384, the fixed table of positions among them."""
  made = audio(
    sample_rate=16_000,
    num_samples=480_000,
    size=dict(embed_dim=384, num_layers=4, num_heads=6, mlp_dim=1536),
    stem="conv",
    positions="sincos",
    hidden="drop",
  )
  assert made.stem.grid(480_000) == (1500, 1)
  # Whisper's keys have no bias.
  assert _count(made, 480_000) == 8_208_384 - 1500 * 384 + 4 * 384


def test_parameters_of_the_audio_spectrogram_transformer():
  """AST-B, 86.6 million with its head of 527 classes, on 1024 frames."""
  made = audio(
    sample_rate=16_000,
    num_samples=163_840,
    size="B",
    stride=(10, 10),
    pool="cls",
    hidden="drop",
    log_mel=dict(num_mels=128),
  )
  d, ours = 768, 102 * 13  # It leaves the last frames and mels out.
  assert made.stem.grid(163_840) == (102, 13)
  total = _count(made, 163_840)
  total += d + (2 + 101 * 12 - ours) * d  # A second token; positions.
  total += 2 * d + (d + 1) * 527  # Head, a norm first.
  assert total == 86_594_063


@pytest.mark.parametrize(
  "num_samples, patch_size",
  [(64, (4, 2)), (63, (4, 2)), (61, (3, 3)), (40, (3, 3)), (37, (5, 4))],
)
def test_the_mask_of_the_data_counts_the_same_tokens(num_samples, patch_size):
  mask = MaskAudio(
    sample_rate=RATE,
    num_samples=num_samples,
    hop_secs=0.004,
    num_mels=MELS,
    patch_size=patch_size,
  )
  made = _made(
    num_samples=num_samples, patch_size=patch_size, audio_grid=mask.grid
  )
  shape = jax.ShapeDtypeStruct((1, num_samples), jnp.float32)
  x = jax.eval_shape(lambda x: made.stem.init_with_output(KEY, x)[0].x, shape)
  assert x.shape[1] == mask.grid[0] * mask.grid[1]
  with pytest.raises(errors.UserError, match="mask hides .*the encoder has"):
    _made(
      num_samples=num_samples,
      patch_size=patch_size,
      audio_grid=(mask.grid[0] + 1, mask.grid[1]),
    )


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(stem="patch"), "Did you mean 'patches'"),
    (dict(hidden="dropped"), "Did you mean 'drop'"),
    (dict(positions="learnt"), "Did you mean 'learned'"),
    (dict(num_samples=60), "audio has 64 samples.*num_samples=60"),
    (dict(stride=(5, 2)), r"stride=\(5, 2\)"),
    (dict(patch_size=(0, 2)), r"patch_size=\(0, 2\)"),
    (dict(log_mel=dict(mels=3)), "log_mel.mels"),
    (dict(spec_augment=dict(mels=3)), "spec_augment.mels"),
  ],
)
def test_mistakes_are_told(waveform, changes, message):
  with pytest.raises(errors.UserError, match=message):
    encoder = _made(**changes)
    jax.eval_shape(lambda: encoder.init(KEY, waveform, train=False))


def test_less_than_a_frame_is_refused(waveform):
  stem = AudioStem(LogMel(RATE, LogMelOptions(**LOG_MEL)), SAMPLES, 16)
  with pytest.raises(errors.UserError, match="audio has 3 samples"):
    jax.eval_shape(lambda: stem.init(KEY, waveform[:, :3]))


def test_silence_after_a_recording_may_be_heard(waveform, randomized):
  """As Whisper hears it: zeros that count as all else."""
  mask = jnp.ones(waveform.shape, bool).at[1, SAMPLES // 2 :].set(False)
  stem = _made("conv", mask_padding=False).stem
  params = randomized(stem, waveform)
  # What stands in place of padding is not heard itself.
  got = _stem(stem, params, waveform, mask=mask)
  silent = _stem(stem, params, jnp.where(mask, waveform, 0.0))
  np.testing.assert_array_equal(got.mask, True)
  np.testing.assert_array_equal(got.x, silent.x)
  masked = _stem(_made("conv").stem, params, waveform, mask=mask)
  assert not bool(masked.mask[1, -1])
  assert np.abs(got.x - masked.x)[1, -1].max() > 1e-3
