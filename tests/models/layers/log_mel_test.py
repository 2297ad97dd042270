import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from mmjax.core import errors
from mmjax.models.layers import log_mel
from mmjax.models.layers.log_mel import LogMel, LogMelOptions

# 16 samples a window, 6 a hop, at 1 kHz.
TINY = dict(
  num_mels=5,
  window_secs=0.016,
  hop_secs=0.006,
  fft_length=32,
  normalize="statistics",
)
RATE = 1000


def _corners(options, rate):
  """Frequencies of the triangles, Hz, by the formulas of the two scales."""
  low, high = options.min_hz, options.max_hz or rate / 2
  if options.scale == "htk":
    mels = np.linspace(
      *(2595 * np.log10(1 + f / 700) for f in (low, high)), options.num_mels + 2
    )
    return [700 * (10 ** (m / 2595) - 1) for m in mels]

  # Slaney's, as it is written down: 15 mels to 1 kHz, then 27 per octave 6.4.
  def to_mel(f):
    return f * 3 / 200 if f < 1000 else 15 + 27 * np.log(f / 1000) / np.log(6.4)

  def to_hz(m):
    return m * 200 / 3 if m < 15 else 1000 * 6.4 ** ((m - 15) / 27)

  ends = to_mel(low), to_mel(high)
  return [to_hz(m) for m in np.linspace(*ends, options.num_mels + 2)]


def _ln_mel(samples, rate, options, hop, window, fft_length):
  """One recording in float64, one frame, frequency and filter at a time."""
  corners = _corners(options, rate)
  hann = [0.5 - 0.5 * np.cos(2 * np.pi * i / window) for i in range(window)]
  out = np.zeros((len(samples) // hop, options.num_mels))

  def sample(i):
    if options.edges == "reflect":
      i = abs(i)
      i = 2 * (len(samples) - 1) - i if i >= len(samples) else i
    return samples[i] if 0 <= i < len(samples) else 0.0

  for f in range(len(out)):
    first = f * hop - (window // 2 if options.centred else 0)
    x = [hann[i] * sample(first + i) for i in range(window)]
    for m, (left, mid, right) in enumerate(
      zip(corners, corners[1:], corners[2:], strict=False)
    ):
      for k in range(fft_length // 2 + 1):
        hz = k * rate / fft_length
        if not left < hz < right:
          continue
        w = (
          (hz - left) / (mid - left)
          if hz < mid
          else (right - hz) / (right - mid)
        )
        w *= 2 / (right - left) if options.area_norm else 1
        turns = np.exp(-2j * np.pi * k * np.arange(window) / fft_length)
        out[f, m] += w * abs(np.dot(x, turns)) ** 2
  return np.log(np.maximum(out, options.floor))


@pytest.mark.parametrize(
  "changes",
  [
    {},
    dict(scale="htk", area_norm=False, centred=False),
    dict(edges="reflect", min_hz=60.0, max_hz=450.0, floor=1e-2),
  ],
)
def test_each_number_of_the_spectrogram_is_that_of_the_formula(rng, changes):
  options = LogMelOptions(**{**TINY, **changes})
  audio = rng.uniform(-1, 1, (2, 50)).astype(np.float32)
  got = LogMel(RATE, options)(jnp.asarray(audio))
  assert got.shape == (2, 8, 5) and got.dtype == jnp.float32
  for i in range(2):
    want = _ln_mel(audio[i].astype(float), RATE, options, 6, 16, 32)
    np.testing.assert_allclose(got[i], want, rtol=1e-4, atol=1e-4)


def _sounds(rng):
  """Half a second at 16 kHz: noise, a chirp, a tone before silence."""
  t = np.arange(8000) / 16000
  tone = 0.5 * np.sin(2 * np.pi * 440 * t) * (t < 0.2)
  chirp = 0.9 * np.sin(2 * np.pi * (100 + 7000 * t) * t)
  noise = rng.uniform(-0.5, 0.5, t.shape)
  return np.stack([noise, chirp, tone]).astype(np.float32)


SETTINGS = {
  "whisper": (dict(edges="reflect"), dict(n_fft=400, n_mels=80)),
  "wide": (
    dict(num_mels=128, fft_length=1024, min_hz=20.0, max_hz=7600.0),
    dict(n_fft=1024, n_mels=128, fmin=20.0, fmax=7600.0),
  ),
  "htk": (
    dict(num_mels=40, fft_length=512, scale="htk", area_norm=False),
    dict(n_fft=512, n_mels=40, htk=True, norm=None),
  ),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_spectrograms_are_those_of_librosa(rng, name):
  ours, theirs = SETTINGS[name]
  audio = _sounds(rng)
  made = LogMel(16000, LogMelOptions(normalize="statistics", **ours))
  got = np.asarray(made(jnp.asarray(audio)))
  want = librosa.feature.melspectrogram(
    y=audio.astype(np.float64),
    sr=16000,
    win_length=400,
    hop_length=160,
    pad_mode="reflect" if name == "whisper" else "constant",
    **theirs,
  )
  want = want.swapaxes(1, 2)[:, :-1]  # b f m, without its last frame.
  assert got.shape == want.shape
  np.testing.assert_allclose(
    made.filters().T,
    librosa.filters.mel(sr=16000, dtype=np.float64, **theirs),
    atol=1e-12,
  )
  loud = want > 1e-7 * want.max(axis=(1, 2), keepdims=True)
  assert loud.mean() > 0.4
  np.testing.assert_allclose(
    got[loud], np.log(np.maximum(want, 1e-10))[loud], rtol=1e-4, atol=1e-4
  )
  # Below, float32 rounding of the loudest frequencies shows.
  np.testing.assert_allclose(np.exp(got), want, rtol=1e-4, atol=1e-4)


def test_normalization_of_whisper(rng):
  audio = _sounds(rng)
  got = LogMel(16000, LogMelOptions(edges="reflect"))(jnp.asarray(audio))
  for i in range(3):
    mels = librosa.feature.melspectrogram(
      y=audio[i],
      sr=16000,
      n_fft=400,
      hop_length=160,
      n_mels=80,
      pad_mode="reflect",
    )[:, :-1]
    # As in whisper/audio.py, `log_mel_spectrogram`.
    log = np.log10(np.clip(mels, 1e-10, None))
    log = (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0
    np.testing.assert_allclose(got[i], log.T, atol=1e-4)


def test_statistics_of_the_data_set_standardise(rng):
  audio = jnp.asarray(_sounds(rng))
  plain = LogMelOptions(normalize="statistics")
  scaled = LogMelOptions(normalize="statistics", mean=-4.0, std=2.5)
  np.testing.assert_allclose(
    LogMel(16000, scaled)(audio),
    (np.asarray(LogMel(16000, plain)(audio)) + 4.0) / 2.5,
    rtol=1e-5,
    atol=1e-5,
  )


@pytest.mark.parametrize("normalize", log_mel.NORMALIZATIONS)
def test_what_is_not_real_changes_nothing_and_is_zero(rng, normalize):
  made = LogMel(RATE, LogMelOptions(**{**TINY, "normalize": normalize}))
  real = rng.uniform(-0.1, 0.1, (1, 30)).astype(np.float32)
  junk = np.array([[np.nan, 1e9] * 15], np.float32)
  mask = np.arange(60)[None] < 30
  padded = jnp.asarray(np.concatenate([real, junk], axis=1))
  got = made(padded, jnp.asarray(mask))
  np.testing.assert_allclose(
    got[:, :5], made(jnp.asarray(real)), rtol=1e-5, atol=1e-6
  )
  np.testing.assert_array_equal(got[:, 5:], 0.0)
  assert np.all(made(padded, jnp.zeros((1, 60), bool)) == 0.0)


def test_a_frame_counts_if_its_own_sample_is_real():
  made = LogMel(RATE, LogMelOptions(**TINY))
  mask = np.zeros((3, 50), bool)
  mask[0, :13] = mask[1, 12:] = mask[2, 13:24] = True
  want = [[i * 6 in range(*r) for i in range(8)] for r in RANGES]
  np.testing.assert_array_equal(made.frame_mask(jnp.asarray(mask)), want)


RANGES = [(0, 13), (12, 50), (13, 24)]


def test_scales_have_their_known_values_and_invert():
  hz = np.array([0.0, 500.0, 1000.0, 6400.0])
  # 1 kHz is 1000 mels of HTK's and 15 of Slaney's; 6.4 kHz 27 more.
  htk = log_mel.hz_to_mel(hz, "htk")
  np.testing.assert_allclose(htk[[0, 2]], [0.0, 1000.0], atol=0.02)
  slaney = log_mel.hz_to_mel(hz, "slaney")
  np.testing.assert_allclose(slaney, [0.0, 7.5, 15.0, 42.0], atol=1e-12)
  for scale in log_mel.SCALES:
    mels = log_mel.hz_to_mel(hz, scale)
    np.testing.assert_allclose(log_mel.mel_to_hz(mels, scale), hz, atol=1e-9)


def test_spectrograms_stay_in_float32_under_jit():
  made = LogMel(RATE, LogMelOptions(**TINY))
  out = jax.eval_shape(made, jax.ShapeDtypeStruct((2, 50), jnp.bfloat16))
  assert out.dtype == jnp.float32


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(scale="slany"), "Did you mean 'slaney'"),
    (dict(edges="reflekt"), "Did you mean 'reflect'"),
    (dict(normalize="wisper"), "Did you mean 'whisper'"),
    (dict(num_mels=0), "num_mels=0"),
    (dict(std=-1.0), "std=-1.0"),
    (dict(fft_length=8), "fft_length=8"),
    (dict(hop_secs=1e-5), "hop of 0 samples"),
    (dict(max_hz=501.0), "max_hz=501.0.*500"),
    (dict(min_hz=500.0), "min_hz=500.0"),
    (dict(num_mels=60), "num_mels=60 .*31.25 Hz.*fewer num_mels"),
  ],
)
def test_wrong_options_are_told(changes, message):
  with pytest.raises(errors.UserError, match=message):
    LogMel(RATE, log_mel.log_mel_options({**TINY, **changes}))


def test_unknown_option_is_told():
  with pytest.raises(errors.UserError, match="log_mel.mels'.*num_mels"):
    log_mel.log_mel_options(dict(mels=80))
