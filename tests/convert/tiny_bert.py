"""A BERT of one layer as its files are, made without torch."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefgh"]
V, D, M, N = len(VOCABULARY), 8, 12, 16  # Rows, channels, hidden, positions.
CONFIG = dict(
  model_type="bert",
  vocab_size=V,
  hidden_size=D,
  num_hidden_layers=1,
  num_attention_heads=2,
  intermediate_size=M,
  max_position_embeddings=N,
  made_by="somebody",  # Nothing here reads it.
)
LAYER = "encoder.layer.0"
SHAPES = {
  "embeddings.word_embeddings.weight": (V, D),
  "embeddings.position_embeddings.weight": (N, D),
  "embeddings.token_type_embeddings.weight": (2, D),
  "embeddings.LayerNorm.weight": (D,),
  "embeddings.LayerNorm.bias": (D,),
  **{
    f"{LAYER}.{name}.{kind}": shape
    for name, rows, columns in (
      ("attention.self.query", D, D),
      ("attention.self.key", D, D),
      ("attention.self.value", D, D),
      ("attention.output.dense", D, D),
      ("intermediate.dense", M, D),
      ("output.dense", D, M),
    )
    for kind, shape in (("weight", (rows, columns)), ("bias", (rows,)))
  },
  **{
    f"{LAYER}.{name}.LayerNorm.{kind}": (D,)
    for name in ("attention.output", "output")
    for kind in ("weight", "bias")
  },
  "pooler.dense.weight": (D, D),
  "pooler.dense.bias": (D,),
}


def write(
  folder: Path, config: Any = CONFIG, drop: Any = (), **more: np.ndarray
) -> dict[str, np.ndarray]:
  """Writes it; its word embeddings are bfloat16. Returns its tensors."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  made = {n: rng.normal(size=s).astype(np.float32) for n, s in SHAPES.items()}
  words = "embeddings.word_embeddings.weight"
  made[words] = made[words].astype(ml_dtypes.bfloat16)
  made = {n: x for n, x in {**made, **more}.items() if n not in drop}
  safetensors.numpy.save_file(made, folder / "model.safetensors")
  (folder / "config.json").write_text(json.dumps(config))
  (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
  return made
