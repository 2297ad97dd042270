"""A tiny model of all modalities and random batches, to try plug-ins on."""

import math
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc
import numpy as np

from mmjax.core.batch import MODALITIES, FieldSpec

BATCH_SIZE = 8  # One example for each of 8 devices.
VOCAB_SIZE, MAX_TOKENS = 48, 12
IMAGE_SIZE, PATCH_SIZE = 16, 4  # Pixels.
NUM_FRAMES = 4
NUM_IMAGES = 2  # Of an example with several.
SAMPLE_RATE, NUM_SAMPLES = 1000, 320  # Hz, samples: 32 frames of 10 ms.
NUM_MELS, AUDIO_PATCH = 8, (4, 4)
NUM_CLASSES = 5
SIZE = dict(embed_dim=16, num_layers=1, num_heads=2, mlp_dim=32)
# What data would say about the model.
FACTS: dict[str, Any] = dict(
  vocab_size=VOCAB_SIZE,
  max_tokens=MAX_TOKENS,
  image_size=IMAGE_SIZE,
  video_size=IMAGE_SIZE,
  num_frames=NUM_FRAMES,
  sample_rate=SAMPLE_RATE,
  num_samples=NUM_SAMPLES,
  image_grid=(IMAGE_SIZE // PATCH_SIZE,) * 2,
  video_grid=(NUM_FRAMES // 2, *(IMAGE_SIZE // PATCH_SIZE,) * 2),
  audio_grid=(NUM_SAMPLES // 10 // AUDIO_PATCH[0], NUM_MELS // AUDIO_PATCH[1]),
)
CLASSES = dict(
  num_classes=NUM_CLASSES,
  class_names=tuple(f"class {i}" for i in range(NUM_CLASSES)),
)
SHAPES = dict(
  image=(IMAGE_SIZE, IMAGE_SIZE, 3),
  video=(NUM_FRAMES, IMAGE_SIZE, IMAGE_SIZE, 3),
  audio=(NUM_SAMPLES,),
  text=(MAX_TOKENS,),
)
SHAPES["images"] = (NUM_IMAGES, *SHAPES["image"])
NUM_HIDDEN = 3
# Tokens of each modality, to hide some of.
TOKENS = {
  name: math.prod(FACTS[f"{name}_grid"]) for name in ("image", "video", "audio")
} | {"text": MAX_TOKENS}
TOKENS["images"] = NUM_IMAGES * TOKENS["image"]
TOKENIZER = dict(
  patch_size=PATCH_SIZE,
  num_codes=16,
  code_dim=4,
  encoder_size=SIZE,
  decoder_size=SIZE,
  tubelet_frames=2,
)
# What objectives of the library need of the model beside `config`.
NEEDS: dict[str, dict[str, Any]] = dict(
  conversation=dict(
    decoders=dict(text=dict(name="text", size=SIZE, context="inline"))
  ),
  tokenizer_distillation=dict(visual_tokenizer=dict(TOKENIZER, name="vq_kd")),
)
LEAST_REAL = 6  # Tokens of the shortest text, more than are hidden.


def config(changes: Mapping[str, Any] | None = None) -> mlc.ConfigDict:
  """A config whose model reads every modality; `changes` are of `model`."""
  model: dict[str, Any] = dict(
    encoders=dict(
      text=dict(name="text", size=SIZE),
      image=dict(name="vit", patch_size=PATCH_SIZE, size=SIZE),
      video=dict(name="video", patch_size=PATCH_SIZE, size=SIZE),
      audio=dict(
        name="audio",
        patch_size=AUDIO_PATCH,
        log_mel=dict(num_mels=NUM_MELS, window_secs=0.03),
        size=SIZE,
      ),
    ),
    fusion=dict(name="joint", size=SIZE),
    # Of random vectors at the usual scale of 14, some are alike by chance: a
    # fresh model would be worse than one that knows nothing.
    shared_dim=64,
    shared_scale=1.0,
    decoders=dict(text=dict(name="text", size=SIZE)),
    visual_tokenizer=dict(TOKENIZER, name="vq"),
    precision="float32",
  )
  model |= changes or {}
  return mlc.ConfigDict(dict(model=model, data=dict(source="synthetic")))


def batch(
  specs: Mapping[str, FieldSpec], rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """A random batch with these fields, and with what says what counts.

  Texts and waveforms are of different lengths; the last example is a filler.
  Fields that no modality has are drawn by their spec: any size is 4, integers
  are 0 or 1.
  """
  made: dict[str, np.ndarray] = {}
  for name in sorted({_modality(field) for field in specs} - {""}):
    made |= _companions(name, rng)
  made |= {
    name: _draw(name, spec, rng)
    for name, spec in specs.items()
    if name not in made
  }
  made["example_mask"] = np.arange(BATCH_SIZE) < BATCH_SIZE - 1
  return {
    name: value
    for name, value in made.items()
    if name in specs or name.endswith(("_mask", "_present"))
  }


def _modality(field: str) -> str:
  """The modality that a field belongs to, if any."""
  head = field.partition("_")[0]
  return head if head in MODALITIES else ""


def _companions(name, rng):
  """All fields of a modality."""
  shape, tokens = (BATCH_SIZE, *SHAPES[name]), TOKENS[name]
  hidden = np.stack(
    [
      np.sort(rng.choice(min(tokens, LEAST_REAL), NUM_HIDDEN, replace=False))
      for _ in range(BATCH_SIZE)
    ]
  ).astype(np.int32)
  fields = {
    f"{name}_hidden": hidden,
    f"{name}_present": np.arange(BATCH_SIZE) != 1,
  }
  if name == "text":
    lengths = rng.integers(LEAST_REAL, MAX_TOKENS + 1, BATCH_SIZE)
    fields["text"] = rng.integers(5, VOCAB_SIZE, shape, dtype=np.int32)
    fields["text_mask"] = np.arange(MAX_TOKENS) < lengths[:, None]
    masked = fields["text"].copy()
    np.put_along_axis(masked, hidden, 4, axis=1)
    fields["text_masked"] = masked
    fields["text_prefix"] = rng.integers(1, 4, BATCH_SIZE, dtype=np.int32)
    fields["text_hidden_mask"] = np.arange(NUM_HIDDEN) < rng.integers(
      1, NUM_HIDDEN + 1, (BATCH_SIZE, 1)
    )
    fields |= _conversations(shape)
  elif name == "audio":
    lengths = rng.integers(NUM_SAMPLES // 2, NUM_SAMPLES + 1, BATCH_SIZE)
    real = np.arange(NUM_SAMPLES) < lengths[:, None]
    waveform = rng.uniform(-1, 1, shape).astype(np.float32)
    fields["audio"] = np.where(real, waveform, 0).astype(np.float32)
    fields["audio_mask"] = real
    fields["audio_hidden_mask"] = np.ones(hidden.shape, bool)
  else:
    fields[name] = rng.integers(0, 256, shape, dtype=np.uint8)
    fields[f"{name}_second"] = rng.integers(0, 256, shape, dtype=np.uint8)
    if name == "images":
      here = np.arange(BATCH_SIZE)[:, None] % 3 + np.arange(NUM_IMAGES)
      fields["images_mask"] = here < NUM_IMAGES
  return fields


def _conversations(shape):
  """Two conversations a row, each with two tokens of a picture."""
  index = np.arange(MAX_TOKENS)
  second, position = np.divmod(index, MAX_TOKENS // 2)
  places = second * TOKENS["image"] + 7 * position
  columns = dict(
    text_segments=1 + second,
    text_positions=position,
    text_answer=position > 2,
    text_places=np.where((position == 1) | (position == 2), places, -1),
  )
  return {
    name: np.broadcast_to(
      values.astype(bool if name == "text_answer" else np.int32), shape
    ).copy()
    for name, values in columns.items()
  }


def _draw(name, spec, rng):
  shape = (BATCH_SIZE, *(4 if side is None else side for side in spec.shape))
  dtype = np.dtype(spec.dtype)
  if name == "label" and dtype.kind == "i":
    return rng.integers(0, NUM_CLASSES, shape, dtype=dtype)
  if dtype.kind == "f":
    return rng.normal(size=shape).astype(dtype)
  if dtype == np.uint8:
    return rng.integers(0, 256, shape, dtype=dtype)
  return rng.integers(0, 2, shape).astype(dtype)


def junk(
  values: Mapping[str, np.ndarray], rng: np.random.Generator
) -> dict[str, np.ndarray]:
  """The same batch with noise wherever nothing counts.

  That is in fillers, in modalities that an example lacks, and behind the end
  of texts and waveforms.
  """
  changed = {}
  for name, value in values.items():
    if name.endswith(("_mask", "_present")):
      changed[name] = value
      continue
    counts = np.broadcast_to(
      values["example_mask"].reshape(-1, *[1] * (value.ndim - 1)), value.shape
    )
    modality = _modality(name)
    if f"{modality}_present" in values:
      present = values[f"{modality}_present"]
      counts = counts & present.reshape(-1, *[1] * (value.ndim - 1))
    if f"{name}_mask" in values:
      mask = values[f"{name}_mask"]
      counts = counts & mask.reshape(
        *mask.shape, *[1] * (value.ndim - mask.ndim)
      )
    elif name == "text_masked":
      counts = counts & values["text_mask"]
    # Rows of other examples: legal values, whatever the field is.
    noise = value[rng.permutation(len(value))]
    changed[name] = np.where(counts, value, noise)
  return changed
