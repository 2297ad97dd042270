"""How recordings are made spectrograms, in a file beside a config."""

from collections.abc import Mapping
from typing import Any

from mmjax.convert.family import PREPROCESSOR, Source
from mmjax.core import errors

RATE = 16_000  # Hz.
TOKEN = 320  # Samples: two frames, of which the stem makes one.
# How Whisper's are made; all released models agree.
WHISPER = dict(sampling_rate=RATE, hop_length=160, n_fft=400, dither=0.0)


def complete_whisper(source: Source, has: set[str]) -> dict[str, Any]:
  """Nothing.

  Raises:
    UserError: spectrograms are made in another way.
  """
  said = source.beside.get(PREPROCESSOR, {})
  for name, value in WHISPER.items():
    if said.get(name, value) != value:
      raise errors.UserError(
        f"{PREPROCESSOR} has {name}={said[name]!r}; spectrograms here "
        f"are as all released models have them, of {value!r}."
      )
  return {}


def whisper_file(config: Mapping[str, Any]) -> dict[str, Any]:
  """What makes spectrograms there."""
  said = dict(
    WHISPER,
    feature_extractor_type="WhisperFeatureExtractor",
    feature_size=config["num_mel_bins"],
    chunk_length=config["max_source_positions"] * TOKEN // RATE,  # Seconds.
    padding_side="right",
    padding_value=0.0,
    return_attention_mask=False,
  )
  return {PREPROCESSOR: said}
