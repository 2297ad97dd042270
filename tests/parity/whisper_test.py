"""The encoder of Whisper against `transformers`."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
RATE, SECS = 16_000, 1
SIZES = dict(
  d_model=16,
  encoder_layers=2,
  encoder_attention_heads=2,
  encoder_ffn_dim=40,
  decoder_layers=1,
  decoder_attention_heads=2,
  decoder_ffn_dim=8,
  max_target_positions=8,
  max_source_positions=50 * SECS,
  vocab_size=50,
  pad_token_id=0,
  bos_token_id=1,
  eos_token_id=2,
  decoder_start_token_id=1,
  # Tokens that they are never to say, of a larger vocabulary.
  begin_suppress_tokens=None,
)


@pytest.fixture(scope="module", params=[80, 128])
def num_mels(request):
  return request.param


@pytest.fixture(scope="module")
def classifier(pair):
  return pair(
    "WhisperForAudioClassification",
    "WhisperConfig",
    **SIZES,
    classifier_proj_size=12,
    num_labels=3,
  )


@pytest.fixture(scope="module")
def model(num_mels, pair):
  name = {80: "WhisperModel", 128: "WhisperForConditionalGeneration"}[num_mels]
  return pair(name, "WhisperConfig", **SIZES, num_mel_bins=num_mels)


@pytest.fixture(scope="module")
def extractor(library, num_mels):
  # A submodule: at the top it hides behind what else needs torchaudio.
  from transformers.models.whisper import feature_extraction_whisper as lib

  return lib.WhisperFeatureExtractor(feature_size=num_mels)


def _chirps(secs):
  """Two recordings, -1..1: noise under rising tones, the second shorter."""
  rng = np.random.default_rng(0)
  time = np.arange(secs * RATE) / RATE
  waves = [
    0.3 * np.sin(2 * np.pi * (f + 900 * time / secs) * time) for f in (200, 50)
  ]
  waves = np.stack(waves) + 0.02 * rng.standard_normal((2, len(time)))
  waves[1, len(time) // 3 :] = 0.0
  mask = np.ones(waves.shape, bool)
  mask[1, len(time) // 3 :] = False
  return waves.astype(np.float32), mask


def _encode(model, waves, mask):
  return model.apply(
    "encode", "audio", jnp.asarray(waves), mask=jnp.asarray(mask), train=False
  )


def _theirs(whole, extractor, torch, waves):
  """Hidden states of each layer of theirs, of waveforms."""
  mels = extractor(
    list(waves),
    sampling_rate=RATE,
    max_length=waves.shape[1],
    return_tensors="pt",
  )
  with torch.no_grad():
    return whole.get_encoder()(mels["input_features"])[0].numpy()


def test_log_mels_of_30_seconds_are_theirs(model, extractor):
  waves, mask = _chirps(30)
  mask[:] = True  # The silence after a recording is heard.
  stem = model.ours.experiment.parts.model.encoders["audio"].stem
  got = stem.log_mel(jnp.asarray(waves), jnp.asarray(mask))
  expected = extractor(list(waves), sampling_rate=RATE, return_tensors="np")
  expected = expected["input_features"].swapaxes(1, 2)
  assert got.shape == expected.shape == (2, 3000, stem.log_mel.options.num_mels)
  np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4)


def test_hidden_states_of_a_waveform_are_theirs(model, extractor, close):
  waves, mask = _chirps(SECS)
  got = _encode(model, waves, mask)
  expected = _theirs(model.theirs, extractor, model.torch, waves)
  close(np.asarray(got.x), expected)
  pooled = model.apply("pool", "audio", got)
  close(np.asarray(pooled), expected.mean(axis=1))


def test_export_is_what_was_imported(model, extractor, close, there_and_back):
  folder, again = there_and_back(model)
  before = safetensors.numpy.load_file(model.folder / "model.safetensors")
  before = {
    name.removeprefix("model."): array
    for name, array in before.items()
    if "encoder." in name and "decoder." not in name
  }
  after = safetensors.numpy.load_file(folder / "model.safetensors")
  assert set(after) == set(before)
  for name, array in before.items():
    np.testing.assert_array_equal(after[name], array, err_msg=name)
  config = json.loads((model.folder / "config.json").read_text())
  exported = json.loads((folder / "config.json").read_text())
  assert {k for k in config if config[k] != exported[k]} <= {"architectures"}
  said = json.loads((folder / "preprocessor_config.json").read_text())
  assert said["feature_size"] == extractor.feature_size
  waves, _ = _chirps(SECS)
  got = _theirs(again, extractor, model.torch, waves)
  close(got, _theirs(model.theirs, extractor, model.torch, waves))


def test_classes_of_a_recording_are_theirs(
  classifier, library, close, there_and_back
):
  from transformers.models.whisper import feature_extraction_whisper as lib

  waves, mask = _chirps(SECS)
  pooled = classifier.apply("pool", "audio", _encode(classifier, waves, mask))
  got = classifier.apply("head", "label", pooled)
  mels = lib.WhisperFeatureExtractor()(
    list(waves), sampling_rate=RATE, max_length=RATE, return_tensors="pt"
  )["input_features"]
  _, again = there_and_back(classifier)
  with library.torch.no_grad():
    expected, exported = (
      m(mels).logits.numpy() for m in (classifier.theirs, again)
    )
  close(got, expected)
  close(exported, expected)
