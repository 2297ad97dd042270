"""Recordings: decode, mix to mono, resample, cut a window; hide tokens."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from mmjax.core import batch, errors
from mmjax.core.batch import FieldSpec
from mmjax.data import masks

MAX_SECONDS = 600.0  # 110 MiB of float32 at 48 kHz.
BLOCK = 65_536  # Samples of all channels that are decoded at a time.
LOUDEST = 2.0  # Codecs overshoot 1 a little; integers as floats by far.
STRATEGIES = ("random", "spans")


def decode(
  encoded: bytes, max_secs: float = MAX_SECONDS
) -> tuple[Float32[np.ndarray, " t"], int]:
  """Decodes WAV, FLAC, Ogg (Vorbis, Opus), MP3: what libsndfile reads.

  Channels are averaged.

  Returns:
    Samples, -1..1, and their rate, Hz.

  Raises:
    ValueError: not a recording, damaged, empty, of more than `max_secs`, or
      with samples that are not finite or far from -1..1.
  """
  import soundfile

  try:
    with soundfile.SoundFile(io.BytesIO(encoded)) as file:
      # Stands in the header: nothing is decoded yet.
      length, rate = file.frames, file.samplerate
      if length > max_secs * rate:
        raise ValueError(
          f"{length / rate:g} s, more than max_decoded_secs={max_secs:g}"
        )
      # In blocks: a file may say that it has very many channels.
      blocks = [
        block.mean(axis=1)
        for block in file.blocks(BLOCK, dtype="float32", always_2d=True)
      ]
  except ValueError:
    raise
  # Decoders of damaged files raise nearly anything.
  except Exception as e:
    raise ValueError(f"not a recording that libsndfile reads: {e}") from e
  samples = np.concatenate([*blocks, np.zeros(0, np.float32)])
  if len(samples) < length:
    raise ValueError(
      f"damaged: {len(samples)} of the {length} samples can be read"
    )
  check_samples(samples)
  return samples, rate


def check_samples(samples: Float32[np.ndarray, " t"]) -> None:
  """Refuses what is no sound.

  Raises:
    ValueError: no samples, or some are not finite or far from -1..1.
  """
  if not len(samples):
    raise ValueError("the recording has no samples")
  peak = float(np.max(np.abs(samples)))  # NaN if there is one.
  if not np.isfinite(peak):
    bad = np.count_nonzero(~np.isfinite(samples))
    raise ValueError(f"{bad} of {len(samples)} samples are NaN or infinite")
  if peak > LOUDEST:
    raise ValueError(f"samples reach {peak:g}, expected -1..1")


@dataclass(frozen=True, kw_only=True)
class AudioTransform:
  """Adds `audio`, a mono waveform of `max_secs`, and `audio_mask`.

  Of a longer recording, in training a random window, else its start; a
  shorter one is followed by silence, where the mask is False.
  """

  sample_rate: int = 16_000  # Hz, of what the model gets.
  max_secs: float = 10.0
  # Recordings of another sample rate are resampled; if not, they are refused.
  resample: bool = False
  gain_db: float = 0.0  # Loudness changes by up to so many decibels.
  # A recording shorter than the window starts up to so late.
  shift_secs: float = 0.0
  field: str = "audio"  # Of the source: encoded bytes, or float32 t.
  max_decoded_secs: float = MAX_SECONDS  # Longer recordings are refused.

  def __post_init__(self):
    if self.sample_rate < 1 or self.num_samples < 1:
      raise errors.UserError(
        f"sample_rate={self.sample_rate}, max_secs={self.max_secs}, "
        "expected at least one sample."
      )
    for name in ("gain_db", "shift_secs"):
      if getattr(self, name) < 0:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected 0 or more."
        )
    if self.max_decoded_secs <= 0:
      raise errors.UserError(
        f"max_decoded_secs={self.max_decoded_secs}, expected more than 0."
      )

  @property
  def num_samples(self) -> int:
    return round(self.max_secs * self.sample_rate)

  @property
  def fixed(self) -> bool:
    """Whether training hears recordings that fit as evaluation does."""
    return not (self.gain_db or self.shift_secs)

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.num_samples,)
    return {
      "audio": FieldSpec(shape, "float32", "t", "waveform, mono, -1..1"),
      "audio_mask": FieldSpec(shape, "bool", "t", "True = not padding"),
    }

  def facts(self) -> dict[str, Any]:
    """What the encoder has to know."""
    return {"sample_rate": self.sample_rate, "num_samples": self.num_samples}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes, and resamples if the config says so.

    Arrays are taken to be of `sample_rate`: they do not say.

    Raises:
      UserError: the source has no such field.
      ValueError: what it holds is not a recording of this sample rate.
    """
    if self.field not in example:
      raise errors.unknown("audio field of the source", self.field, example)
    samples = example[self.field]
    if isinstance(samples, bytes):
      samples, rate = decode(samples, self.max_decoded_secs)
      return {**example, self.field: self._resampled(samples, rate)}
    if not (
      isinstance(samples, np.ndarray)
      and samples.dtype == np.float32
      and samples.ndim == 1
    ):
      got = type(samples).__name__
      if isinstance(samples, np.ndarray):
        got = batch.describe(samples)
      raise ValueError(
        f"field {self.field!r} holds {got}, expected encoded bytes or "
        "float32[t]"
      )
    check_samples(samples)
    return dict(example)

  def _resampled(self, samples, rate):
    if rate == self.sample_rate:
      return samples
    if not self.resample:
      raise ValueError(
        f"the recording has {rate} Hz, expected sample_rate="
        f"{self.sample_rate}; set data.audio.resample=True to convert it"
      )
    import soxr

    resampled = soxr.resample(samples, rate, self.sample_rate)
    if not len(resampled):
      raise ValueError(f"{len(samples)} samples of {rate} Hz are too few")
    return resampled

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    samples = self.prepare(example)[self.field]
    size, late = self.num_samples, 0
    if train:
      where, louder = rng.random(2).tolist()
      spare = len(samples) - size
      if spare > 0:
        start = int(where * (spare + 1))
        samples = samples[start : start + size]
      else:
        latest = min(-spare, round(self.shift_secs * self.sample_rate))
        late = int(where * (latest + 1))
      if self.gain_db:
        gain = 10 ** (self.gain_db * (2 * louder - 1) / 20)
        samples = samples * np.float32(gain)
    samples = np.clip(samples[:size], -1.0, 1.0)
    here = slice(late, late + len(samples))
    waveform, mask = np.zeros(size, np.float32), np.zeros(size, bool)
    waveform[here], mask[here] = samples, True
    return {**example, "audio": waveform, "audio_mask": mask}


@dataclass(frozen=True, kw_only=True)
class MaskAudio:
  """Adds `audio_hidden`: the tokens to hide, the same number each time.

  They are those of an audio encoder whose spectrogram has these numbers: time
  slowest, then frequency. "random" hides any tokens; "spans" all tokens of
  stretches of time, which may run into each other (wav2vec 2.0, Baevski et
  al. 2020, arXiv:2006.11477, 3.1).

  Of the tokens that are real and of those that are not, the same share is
  hidden; `audio_hidden_mask` says which of the hidden ones are real.
  """

  sample_rate: int  # Hz.
  num_samples: int  # Of each waveform.
  hop_secs: float = 0.010
  num_mels: int = 80
  patch_size: tuple[int, int] = (16, 16)  # Frames x mels.
  rate: float = 0.5  # Share of the tokens.
  strategy: str = "random"  # Or "spans".
  span: int = 4  # Tokens along time, of "spans".

  def __post_init__(self):
    if self.strategy not in STRATEGIES:
      raise errors.unknown("mask strategy", self.strategy, STRATEGIES)
    sizes = (self.hop, self.num_mels, self.span, *self.patch_size)
    if min(sizes) < 1 or self.hop > self.num_samples:
      raise errors.UserError(
        f"hop_secs={self.hop_secs}, num_mels={self.num_mels}, patch_size="
        f"{self.patch_size}, span={self.span}, expected at least 1 sample, "
        "mel, frame and token each, and a hop within the recording."
      )
    masks.check_count(self.grid, self.rate, self.count)

  @property
  def hop(self) -> int:
    """Samples from frame to frame."""
    return round(self.hop_secs * self.sample_rate)

  @property
  def grid(self) -> tuple[int, int]:
    """Tokens along time and frequency, parts of patches included."""
    frames, mels = self.patch_size
    return -(-(self.num_samples // self.hop) // frames), -(
      -self.num_mels // mels
    )

  @property
  def count(self) -> int:
    times, rows = self.grid
    if self.strategy == "spans":
      return round(self.rate * times) * rows
    return round(self.rate * times * rows)

  def specs(self) -> dict[str, FieldSpec]:
    doc = "indices of hidden tokens: by time, then frequency, ascending"
    return {
      "audio_hidden": FieldSpec((self.count,), "int32", "k", doc),
      "audio_hidden_mask": FieldSpec(
        (self.count,), "bool", "k", "True = not padding"
      ),
    }

  def facts(self) -> dict[str, Any]:
    """What the encoder has to agree with."""
    return {"audio_grid": self.grid}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out losses hide tokens too.
    times, rows = self.grid
    real = np.repeat(self._real_times(example["audio_mask"]), rows)
    if self.strategy == "random":
      hidden = self._draw(rng, real, self.count)
    else:
      chosen = self._draw(rng, real[::rows], self.count // rows)
      hidden = (chosen[:, None] * rows + np.arange(rows)).reshape(-1)
    return {
      **example,
      "audio_hidden": hidden.astype(np.int32),
      "audio_hidden_mask": real[hidden],
    }

  def _real_times(self, mask: Bool[np.ndarray, " t"]):
    """True for tokens of which a frame counts; a frame's sample says so."""
    frames = mask[:: self.hop][: self.num_samples // self.hop]
    times, width = self.grid[0], self.patch_size[0]
    padded = np.zeros(times * width, bool)
    padded[: len(frames)] = frames
    return padded.reshape(times, width).any(axis=1)

  def _draw(
    self, rng: np.random.Generator, real: Bool[np.ndarray, " n"], count: int
  ) -> Int[np.ndarray, " k"]:
    """Which of the places to hide, ascending."""
    places, padding = np.flatnonzero(real), np.flatnonzero(~real)
    share = max(round(self.rate * len(places)), count - len(padding))
    share = min(share, count)
    length = self.span if self.strategy == "spans" else 1
    chosen = places[spans(rng, len(places), share, length)]
    filler = rng.permutation(padding)[: count - share]
    return np.sort(np.concatenate([chosen, filler]))


def spans(
  rng: np.random.Generator, length: int, count: int, span: int
) -> Int[np.ndarray, " k"]:
  """Draws spans until `count` of `length` places are covered.

  Of the last span, its first, as many as are missing.
  """
  span = max(1, min(span, count))  # Else, places at the end have no chance.
  hidden = np.zeros(length, bool)
  left = count
  for start in rng.permutation(length - span + 1).tolist():
    if not left:
      break
    fresh = np.flatnonzero(~hidden[start : start + span])[:left]
    hidden[start + fresh] = True
    left -= len(fresh)
  return np.flatnonzero(hidden)
