import io

import numpy as np
import pytest
import soundfile

from mmjax.core import errors
from mmjax.data import pipeline
from mmjax.data.transforms import audio
from mmjax.data.transforms.audio import AudioTransform, MaskAudio

RATE = 8000


def _tone(seconds=0.5, rate=RATE, hz=440.0):
  return 0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)


def _encode(samples, form="WAV", subtype=None, rate=RATE):
  file = io.BytesIO()
  soundfile.write(file, samples, rate, format=form, subtype=subtype)
  return file.getvalue()


@pytest.mark.parametrize(
  "form, subtype, error",
  [
    ("WAV", "PCM_16", 1e-4),
    ("WAV", "FLOAT", 1e-7),
    ("FLAC", "PCM_24", 1e-6),
    ("OGG", "VORBIS", 0.05),
    ("OGG", "OPUS", 0.1),  # Made for speech: a tone is a hard case.
  ],
)
def test_decode_gives_what_was_encoded(form, subtype, error):
  samples, rate = audio.decode(_encode(_tone(), form, subtype))
  assert rate == RATE and samples.dtype == np.float32
  # The edges of a block are where codecs err most.
  middle = slice(800, 3200)
  np.testing.assert_allclose(samples[middle], _tone()[middle], atol=error)


def test_decode_averages_channels(rng):
  stereo = rng.uniform(-0.5, 0.5, (300, 2))
  samples, _ = audio.decode(_encode(stereo, "WAV", "FLOAT"))
  np.testing.assert_allclose(samples, stereo.mean(axis=1), atol=1e-7)


def test_decode_refuses_a_long_recording_before_it_decodes(monkeypatch):
  data = _encode(_tone(2.0), "FLAC")
  assert len(audio.decode(data, 2.0)[0]) == 16_000

  def blocks(*args, **kwargs):
    raise AssertionError("decoded")

  monkeypatch.setattr(soundfile.SoundFile, "blocks", blocks)
  with pytest.raises(ValueError, match="2 s, more than max_decoded_secs=1"):
    audio.decode(data, 1.0)


def test_decode_says_what_is_broken():
  flac = _encode(_tone(2.0), "FLAC")
  for data in (b"", b"hello", flac[:60]):
    with pytest.raises(ValueError, match="not a recording that libsndfile"):
      audio.decode(data)
  with pytest.raises(ValueError, match="not a recording|damaged: .* of the"):
    audio.decode(flac[: len(flac) // 2])


@pytest.mark.parametrize(
  "samples, message",
  [
    (np.zeros(0), "no samples"),
    (np.array([0.0, np.nan, 0.1]), "1 of 3 samples are NaN or infinite"),
    (np.array([np.inf, -np.inf, 0.1]), "2 of 3 samples are NaN or infinite"),
    (np.array([0.0, 3e4]), "samples reach 30000, expected -1..1"),
  ],
)
def test_what_is_no_sound_is_refused(samples, message):
  with pytest.raises(ValueError, match=message):
    audio.decode(_encode(samples, "WAV", "FLOAT"))
  raw = {"audio": samples.astype(np.float32)}
  with pytest.raises(ValueError, match=message):
    AudioTransform(sample_rate=RATE).prepare(raw)


def test_another_sample_rate_is_an_error_unless_resampling_is_asked_for():
  example = {"audio": _encode(_tone(), "FLAC")}
  with pytest.raises(
    ValueError, match="8000 Hz.*sample_rate=16000.*data.audio.resample=True"
  ):
    AudioTransform(sample_rate=16_000).prepare(example)
  for rate in (16_000, 11_025):
    transform = AudioTransform(sample_rate=rate, resample=True)
    got = transform.prepare(example)["audio"]
    want = _tone(rate=rate)
    assert abs(len(got) - len(want)) <= 1 and got.dtype == np.float32
    middle = slice(len(want) // 4, 3 * len(want) // 4)
    np.testing.assert_allclose(got[middle], want[middle], atol=2e-3)


def _cut(samples, *, train=False, rng=None, **changes):
  transform = AudioTransform(
    **{**dict(sample_rate=100, max_secs=0.5), **changes}
  )
  rng = rng or np.random.default_rng(0)
  out = transform({"audio": samples}, rng, train=train)
  for name, spec in transform.specs().items():
    assert spec.matches(out[name][None])
  return out["audio"], out["audio_mask"]


def test_evaluation_takes_the_start():
  ramp = np.arange(80, dtype=np.float32) / 80
  waveform, mask = _cut(ramp, shift_secs=0.1, gain_db=6.0)
  np.testing.assert_array_equal(waveform, ramp[:50])
  assert mask.all()


def test_training_takes_any_window(rng):
  ramp = np.arange(53, dtype=np.float32) / 53
  starts = set()
  for _ in range(100):
    waveform, mask = _cut(ramp, train=True, rng=rng)
    start = round(float(waveform[0]) * 53)
    np.testing.assert_array_equal(waveform, ramp[start : start + 50])
    assert mask.all()
    starts.add(start)
  assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("train", [True, False])
def test_a_short_recording_is_padded_where_the_mask_is_false(train):
  short = np.full(20, 0.5, np.float32)
  waveform, mask = _cut(short, train=train)
  np.testing.assert_array_equal(mask, np.arange(50) < 20)
  np.testing.assert_array_equal(waveform, np.where(mask, 0.5, 0.0))


def test_a_short_recording_may_start_later(rng):
  short = np.full(20, 0.5, np.float32)
  starts = set()
  for _ in range(200):
    waveform, mask = _cut(short, train=True, rng=rng, shift_secs=0.04)
    np.testing.assert_array_equal(waveform, np.where(mask, 0.5, 0.0))
    starts.add(int(np.flatnonzero(mask)[0]))
    assert mask.sum() == 20
  assert starts == {0, 1, 2, 3, 4}
  # No later than it fits.
  for _ in range(50):
    _, mask = _cut(short, train=True, rng=rng, shift_secs=9.0)
    assert mask.sum() == 20


def test_gain_is_within_its_limits_and_clipped(rng):
  gains = []
  for _ in range(200):
    waveform, _ = _cut(
      np.full(50, 0.1, np.float32), train=True, rng=rng, gain_db=6.0
    )
    gains.append(20 * np.log10(waveform[0] / 0.1))
  assert -6.001 < min(gains) < -5.5 and 5.5 < max(gains) < 6.001
  loud, _ = _cut(np.full(50, -1.5, np.float32))
  np.testing.assert_array_equal(loud, -1.0)


def test_same_generator_same_window():
  noise = np.random.default_rng(1).uniform(-1, 1, 500).astype(np.float32)

  def draw(seed):
    rng = np.random.default_rng(seed)
    return _cut(noise, train=True, rng=rng, gain_db=3.0)[0]

  np.testing.assert_array_equal(draw(0), draw(0))
  assert (draw(0) != draw(1)).any()


def test_what_is_not_a_recording_is_told():
  with pytest.raises(errors.UserError, match="Did you mean 'audio'"):
    AudioTransform(field="adio").prepare({"audio": b""})
  with pytest.raises(ValueError, match=r"holds int16\[4\], expected encoded"):
    AudioTransform().prepare({"audio": np.zeros(4, np.int16)})
  with pytest.raises(ValueError, match="holds str"):
    AudioTransform().prepare({"audio": "a.wav"})


@pytest.mark.parametrize(
  "fields",
  [
    dict(sample_rate=0),
    dict(max_secs=0.0),
    dict(gain_db=-1.0),
    dict(shift_secs=-1.0),
    dict(max_decoded_secs=0.0),
  ],
)
def test_wrong_settings_are_refused_at_once(fields):
  (name,) = fields
  with pytest.raises(errors.UserError, match=f"{name}=.*expected"):
    AudioTransform(**fields)


def _mask(**changes):
  """50 frames: 13 columns of 4, the last of 2, in 2 rows, the last of 1."""
  fields = dict(
    sample_rate=1000,
    num_samples=203,
    hop_secs=0.004,
    num_mels=3,
    patch_size=(4, 2),
  )
  return MaskAudio(**{**fields, **changes})


def _drawn(mask, rng, real=203, start=0):
  here = np.arange(203)
  audio_mask = (start <= here) & (here < start + real)
  out = mask({"audio_mask": audio_mask}, rng, train=True)
  for name, spec in mask.specs().items():
    assert spec.matches(out[name][None])
  hidden = out["audio_hidden"]
  assert len(set(hidden.tolist())) == mask.count
  assert np.all(np.diff(hidden) > 0)
  assert 0 <= hidden[0] and hidden[-1] < mask.grid[0] * mask.grid[1]
  return hidden, out["audio_hidden_mask"]


def test_grid_of_the_spectrogram():
  assert _mask().grid == (13, 2)
  assert _mask(patch_size=(2, 3)).grid == (25, 1)
  assert _mask().count == 13 and _mask(strategy="spans").count == 12


@pytest.mark.parametrize("strategy", audio.STRATEGIES)
def test_real_tokens_are_hidden_at_the_same_rate(rng, strategy):
  mask = _mask(strategy=strategy, span=3)
  for start, real in ((0, 203), (0, 62), (40, 62)):
    # Columns are 16 samples; one is real if a frame's first sample is.
    columns = [
      any(start <= 4 * f < start + real for f in range(4 * c, 4 * c + 4))
      for c in range(13)
    ]
    counts = np.zeros(26, int)
    for _ in range(200):
      hidden, hidden_mask = _drawn(mask, rng, real, start)
      np.testing.assert_array_equal(
        hidden_mask, [columns[i // 2] for i in hidden]
      )
      counts[hidden] += 1
    share = counts[np.repeat(columns, 2)].sum() / (200 * 2 * sum(columns))
    assert abs(share - 0.5) <= 0.5 / sum(columns)
    # Every token is drawn sometimes.
    assert counts.min() > 0


def test_spans_hide_stretches_of_time(rng):
  mask = _mask(strategy="spans", span=3, rate=0.25)
  for _ in range(50):
    hidden, _ = _drawn(mask, rng)
    rows = np.zeros(26, bool)
    rows[hidden] = True
    rows = rows.reshape(13, 2)
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    assert rows[:, 0].sum() == 3  # 0.25 * 13, rounded: one span.
    assert np.ptp(np.flatnonzero(rows[:, 0])) == 2


def test_spans_cover_what_is_asked_for(rng):
  for length, count, span in ((10, 0, 3), (10, 10, 3), (2, 1, 5), (9, 7, 4)):
    chosen = audio.spans(rng, length, count, span)
    assert len(chosen) == count and set(chosen) <= set(range(length))


def test_masks_are_a_function_of_the_generator():
  mask = _mask()
  first, _ = _drawn(mask, np.random.default_rng(0))
  again, _ = _drawn(mask, np.random.default_rng(0))
  other, _ = _drawn(mask, np.random.default_rng(1))
  np.testing.assert_array_equal(first, again)
  assert (first != other).any()


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(rate=0.01), "hides 0 of its 26 tokens"),
    (dict(rate=0.99), "hides 26 of its 26 tokens"),
    (dict(strategy="span"), "Did you mean 'spans'"),
    (dict(span=0), "span=0"),
    (dict(patch_size=(0, 2)), r"patch_size=\(0, 2\)"),
    (dict(hop_secs=0.3), "hop_secs=0.3"),
  ],
)
def test_wrong_masks_are_refused(changes, message):
  with pytest.raises(errors.UserError, match=message):
    _mask(**changes)


AUDIO = dict(sample_rate=8000, max_secs=3.0, mask=dict(rate=0.5))


def _build(path, **changes):
  config = dict(
    source="starter_speech",
    path=path,
    audio={**AUDIO, **changes},
    text=dict(field="transcript_en", max_tokens=32),
  )
  return pipeline.build_pipeline(config)


def test_starter_speech_becomes_waveforms(starter_path):
  made = _build(starter_path)
  specs = {name: str(spec) for name, spec in made.specs.items()}
  # 300 frames of 80 mels: 19 x 5 patches.
  assert specs == {
    "audio": "float32[b, 24000]",
    "audio_mask": "bool[b, 24000]",
    "audio_hidden": "int32[b, 48]",
    "audio_hidden_mask": "bool[b, 48]",
    "text": "int32[b, 32]",
    "text_mask": "bool[b, 32]",
  }
  for index in range(3):
    example = made.example(index, 0, 0, train=False)
    seconds = made.source[index]["seconds"]
    want = min(3.0, seconds)
    assert example["audio_mask"].sum() / 8000 == pytest.approx(want, abs=0.02)
    assert 0.01 < np.abs(example["audio"]).max() <= 1.0
    # Cached and not, the same.
    again = _build(starter_path).example(index, 0, 0, train=False)
    np.testing.assert_array_equal(example["audio"], again["audio"])


@pytest.mark.parametrize(
  "changes, message",
  [
    (dict(sample_rat=8000), "data.audio.sample_rat.*'sample_rate'"),
    (dict(sample_rate=16_000), "8000 Hz.*resample=True"),
    (dict(mask=dict(rates=0.5)), "data.audio.mask.rates.*'rate'"),
    (dict(mask=dict(num_samples=5)), "data.audio.mask.num_samples"),
    (dict(mask=dict(rate=2.0)), "config.data.audio.mask: rate=2.0"),
    (dict(max_decoded_secs=0.1), "more than max_decoded_secs=0.1"),
  ],
)
def test_mistakes_in_a_config_are_told(starter_path, changes, message):
  with pytest.raises(errors.UserError, match=message):
    _build(starter_path, **changes)
