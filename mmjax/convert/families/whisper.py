"""The encoder of Whisper (Radford et al. 2022, arXiv:2212.04356)."""

from mmjax.convert.beside import sounds
from mmjax.convert.beside.sounds import RATE, TOKEN
from mmjax.convert.family import Family
from mmjax.convert.tables import keys, rules

KEYS = """
  [model.encoders.audio.]
  @pre
  name=audio stem=conv positions=learned pool=mean mask_padding=False
  # Without a token for hidden windows: of those there are none.
  hidden=drop
  sample_rate=16000
  num_samples             <-> max_source_positions ? 1500 : $samples
  pool_projection         <-> classifier_proj_size ? 256 if label
  size.embed_dim          <-> d_model
  size.{num_layers,num_heads} <-> encoder_{layers,attention_heads}
  size.mlp_dim            <-> encoder_ffn_dim
  stack.norm_epsilon=1e-5 stack.key_bias=False
  stack.activation        <-> activation_function ? gelu : activation
  stack.dropout_rate      <-> dropout ? 0.0
  <-> attention_dropout~0.0 activation_dropout~0.0
  <-> use_weighted_layer_sum=False if label
  [model.encoders.audio.log_mel.]
  window_secs=0.025 hop_secs=0.01 fft_length=0 centred=True edges=reflect
  scale=slaney area_norm=True min_hz=0.0 max_hz=0.0 floor=1e-10
  normalize=whisper
  num_mels                <-> num_mel_bins ? 80
  [objectives.features.]
  name=features modality=audio
  [data.]
  # Any source with recordings.
  source=starter_speech audio.sample_rate=16000 audio.resample=True
  audio.max_secs          <-> max_source_positions : $secs
"""
FAMILY = Family(
  name="whisper",
  keys=keys(
    KEYS,
    samples=(lambda n: n * TOKEN, lambda samples: (samples or 0) // TOKEN),
    secs=(lambda n: n * TOKEN / RATE, lambda secs: secs),
  ),
  rules=rules(r"""
    [encoders_audio/ <-> {p}encoder.]
    stem/conv_{0,1}       <-> conv{1,2} : conv1d(3)
    stem/positions/table  <-> embed_positions.weight
    stack/norm            <-> layer_norm : norm
    [encoders_audio/stack/layer_{i}/ <-> {p}encoder.layers.{i}.]
    {attention,mlp}_norm  <-> {self_attn,final}_layer_norm : norm
    attention/{query,value} <-> self_attn.{q,v}_proj : linear
    attention/key/kernel  <-> self_attn.k_proj.weight : matrix
    attention/out         <-> self_attn.out_proj : linear(2)
    mlp/{hidden,out}      <-> fc{1,2} : linear
    [ if label]
    heads_label/logits    <-> classifier : linear
    encoders_audio/pooling/projection <-> projector : linear
    []
    - {p}decoder\..*|proj_out\.weight : of the decoder, not read
  """),
  num_layers="encoder_layers",
  prefix="model.",
  heads=(),
  architectures={"": "WhisperModel", "label": "WhisperForAudioClassification"},
  complete=sounds.complete_whisper,
  files=sounds.whisper_file,
)
