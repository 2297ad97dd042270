"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356)."""

from mmjax.convert import lines
from mmjax.convert.family import Family
from mmjax.convert.mapping import Ignored, rule
from mmjax.convert.transforms import Windows
from mmjax.core import errors

AUDIO, OURS = "model.encoders.audio", "encoders_audio"
BLOCK, LAYER = f"{OURS}/stack/layer_{{i:02d}}", "{p}encoder.layers.{i}"
RATE, HOP = 16_000, 160  # Hz; samples from frame to frame.
TOKEN = 2 * HOP  # Samples.
# How spectrograms are made; all released models agree.
EXTRACTOR = dict(sampling_rate=RATE, hop_length=HOP, n_fft=400, dither=0.0)
LOG_MEL = dict(
  window_secs=0.025,
  hop_secs=HOP / RATE,
  fft_length=0,
  centred=True,
  edges="reflect",
  scale="slaney",
  area_norm=True,
  min_hz=0.0,
  max_hz=0.0,
  floor=1e-10,
  normalize="whisper",
)
ENCODER = dict(
  name="audio",
  stem="conv",
  positions="learned",
  hidden="drop",  # Without a token for hidden windows: of those are none.
  mask_padding=False,
  pool="mean",
  sample_rate=RATE,
)


def _complete(source, has):
  """Refuses spectrograms that are made in another way."""
  said = source.beside.get(lines.PREPROCESSOR, {})
  for name, value in EXTRACTOR.items():
    if said.get(name, value) != value:
      raise errors.UserError(
        f"{lines.PREPROCESSOR} has {name}={said[name]!r}; spectrograms here "
        f"are as all released models have them, of {value!r}."
      )
  return {}


def _files(config):
  """What makes spectrograms there."""
  said = dict(
    EXTRACTOR,
    feature_extractor_type="WhisperFeatureExtractor",
    feature_size=config["num_mel_bins"],
    chunk_length=config["max_source_positions"] * TOKEN // RATE,  # Seconds.
    padding_side="right",
    padding_value=0.0,
    return_attention_mask=False,
  )
  return {lines.PREPROCESSOR: said}


def _convolution(i):
  ours, theirs = f"{OURS}/stem/conv_{i}", f"{{p}}encoder.conv{i + 1}"
  return [
    rule(f"{ours}/kernel", f"{theirs}.weight", Windows(3)),
    rule(f"{ours}/bias", f"{theirs}.bias"),
  ]


FAMILY = Family(
  name="whisper",
  keys=(
    *lines.fixed(AUDIO, **ENCODER),
    *lines.fixed(f"{AUDIO}.log_mel", **LOG_MEL),
    lines.key(f"{AUDIO}.log_mel.num_mels", "num_mel_bins", default=80),
    lines.key(
      f"{AUDIO}.num_samples",
      "max_source_positions",
      default=1500,
      into=lambda tokens: tokens * TOKEN,
      back=lambda samples: (samples or 0) // TOKEN,
    ),
    lines.key(
      f"{AUDIO}.pool_projection",
      "classifier_proj_size",
      default=256,
      when="label",
    ),
    *lines.size(
      AUDIO,
      embed_dim="d_model",
      num_layers="encoder_layers",
      num_heads="encoder_attention_heads",
      mlp_dim="encoder_ffn_dim",
    ),
    *lines.stack(f"{AUDIO}.stack", "pre"),
    *lines.fixed(f"{AUDIO}.stack", norm_epsilon=1e-5, key_bias=False),
    lines.activation(
      f"{AUDIO}.stack.activation", "activation_function", "gelu"
    ),
    lines.key(f"{AUDIO}.stack.dropout_rate", "dropout", default=0.0),
    *lines.features("audio"),
    *lines.fixed("data", source="starter_speech"),  # Any with recordings.
    *lines.fixed("data.audio", sample_rate=RATE, resample=True),
    lines.key(
      "data.audio.max_secs",
      "max_source_positions",
      into=lambda tokens: tokens * TOKEN / RATE,
    ),
    lines.theirs("use_weighted_layer_sum", False, when="label"),
    lines.theirs("attention_dropout", 0.0, checked=False),
    lines.theirs("activation_dropout", 0.0, checked=False),
  ),
  rules=(
    _convolution(0),
    _convolution(1),
    rule(f"{OURS}/stem/positions/table", "{p}encoder.embed_positions.weight"),
    lines.block(
      BLOCK,
      LAYER,
      unbiased=("key",),
      attention_norm="self_attn_layer_norm",
      query="self_attn.q_proj",
      key="self_attn.k_proj",
      value="self_attn.v_proj",
      out="self_attn.out_proj",
      mlp_norm="final_layer_norm",
      hidden="fc1",
      mlp_out="fc2",
    ),
    lines.norm(f"{OURS}/stack/norm", "{p}encoder.layer_norm"),
    ("label", lines.linear(f"{OURS}/pooling/projection", "projector")),
    ("label", lines.linear("heads_label/logits", "classifier")),
    Ignored(r"{p}decoder\..*|proj_out\.weight", "of the decoder, not read"),
  ),
  parts={"label": ("classifier.weight", "heads_label/logits/kernel")},
  num_layers="encoder_layers",
  prefix="model.",
  architectures={
    "": "WhisperModel",
    "label": "WhisperForAudioClassification",
  },
  complete=_complete,
  files=_files,
)
