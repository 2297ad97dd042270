"""The axes of growth.py: what each changes, a formula, and a config."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import ml_collections as mlc
import numpy as np

from mmjax.data import tokenizer_train

PATCH, TEXT = 16, 64  # Pixels, tokens.
D, LAYERS, HEAD = 128, 4, 32  # Width, depth, width of a head.
HIDDEN_RATE = 0.25  # Of patches and of tokens.


class Shape(NamedTuple):
  """What an axis changes."""

  batch: int = 8
  d: int = D
  layers: int = LAYERS
  image: int = 160  # Pixels: 100 tokens.
  objectives: int = 1
  tasks: int = 1
  vocab: int = 2048
  codes: int = 512
  devices: int = 1

  @property
  def patches(self) -> int:
    """Tokens of a picture."""
    return (self.image // PATCH) ** 2


def tower(layers: int, n: int, d: int, context: int = 0) -> float:
  """Forward FLOPs of a stack on one example; the MLP is 4 d wide."""
  own = 24 * n * d * d + 4 * n * n * d
  cross = 4 * d * d * (n + context) + 4 * n * context * d if context else 0
  return layers * (own + cross)


def kept(layers: int, n: int, d: int) -> float:
  """Bytes of one example that the backward pass of a stack reads.

  Both sides of two norms, q, k, v, the attended, two of the MLP's; and the
  probabilities of each head.
  """
  return 4.0 * layers * (16 * n * d + d // HEAD * n * n)


def gradients(layers: int, d: int, other: int = 0) -> float:
  """Bytes of the gradient of all parameters."""
  return 4.0 * (layers * 12 * d * d + other)


def one_tower(s: Shape) -> tuple[float, float]:
  """FLOPs and bytes of a step of an image classifier."""
  stem = 2 * s.patches * 3 * PATCH**2 * s.d
  flops = 3 * tower(s.layers, s.patches, s.d) + 2 * stem
  rows = s.batch * s.tasks / s.devices
  return rows * flops, rows * kept(s.layers, s.patches, s.d) + gradients(
    s.layers, s.d, 3 * PATCH**2 * s.d
  )


def words(s: Shape) -> tuple[float, float]:
  """Hidden words of a text encoder: logits where they are hidden."""
  hidden = HIDDEN_RATE * TEXT
  flops = 3 * (tower(LAYERS, TEXT, D) + 2 * hidden * D * (D + s.vocab))
  # Logits and their gradient; gradients of the table and of the head.
  logits = 2 * 4.0 * hidden * s.vocab
  return s.batch * flops, s.batch * (
    kept(LAYERS, TEXT, D) + logits
  ) + gradients(LAYERS, D, 2 * s.vocab * D)


def codes(s: Shape) -> tuple[float, float]:
  """Codes of hidden patches, of a tokenizer that is not trained."""
  n, hidden, dim = s.patches, HIDDEN_RATE * s.patches, 16
  stem = 2 * n * 3 * PATCH**2 * D
  frozen = 2 * n * 3 * PATCH**2 * dim + 2 * n * dim * s.codes
  flops = 3 * (tower(LAYERS, n, D) + 2 * hidden * D * (D + s.codes))
  stays = kept(LAYERS, n, D) + 2 * 4.0 * hidden * s.codes  # And logits.
  grads = gradients(LAYERS, D, s.codes * D)
  before = 4.0 * n * s.codes  # Distances to the codebook, gone by then.
  return (
    s.batch * (flops + 2 * stem + frozen),
    max(s.batch * stays + grads, s.batch * before),
  )


FUSED, DECODED = 2, 2
OBJECTIVES = (
  "contrastive",
  "masked_lm",
  "vision_token_prediction",
  "matching",
  "captioning",
)


def many(s: Shape) -> tuple[float, float]:
  """Text and image: both encoders once a view, each fused set once."""
  n, count = s.patches, s.objectives
  both = tower(LAYERS, n, D) + tower(LAYERS, TEXT, D)
  memory = kept(LAYERS, n, D) + kept(LAYERS, TEXT, D)
  stem = 2 * n * 3 * PATCH**2 * D
  views = 1 + (count >= 2)
  fused = (count >= 2) + 3 * (count >= 4)
  forward = views * both + fused * tower(FUSED, n + TEXT, D) + 2 * 2 * D * D
  memory = views * memory + fused * kept(FUSED, n + TEXT, D)
  frozen = 0.0
  if count >= 2:
    forward += 2 * HIDDEN_RATE * TEXT * D * (D + s.vocab)
    memory += 8 * HIDDEN_RATE * TEXT * s.vocab
  if count >= 3:
    forward += 2 * HIDDEN_RATE * n * D * (D + s.codes)
    memory += 8 * HIDDEN_RATE * n * s.codes
    frozen = 2 * n * 3 * PATCH**2 * 16 + 2 * n * 16 * s.codes
  if count >= 5:
    forward += tower(DECODED, TEXT, D, n) + 2 * (TEXT - 1) * D * s.vocab
    memory += kept(DECODED, TEXT, D) * 4 / 3 + 8 * TEXT * s.vocab
  params = gradients(2 * LAYERS + 2 * (count >= 2), D, s.vocab * D * 2)
  flops = 3 * forward + 2 * views * stem + frozen
  return s.batch * flops, s.batch * memory + params


class Axis(NamedTuple):
  """What is varied, and what a formula says of it."""

  field: str
  values: tuple[int, ...]
  formula: Callable[[Shape], tuple[float, float]]
  base: Shape = Shape()
  mixture: str = "sum"

  def shapes(self) -> list[Shape]:
    """All of its models."""
    return [self.base._replace(**{self.field: v}) for v in self.values]


AXES = {
  "batch": Axis("batch", (4, 8, 16, 32), one_tower),
  "width": Axis("d", (64, 128, 256, 512), one_tower, Shape(batch=4)),
  "depth": Axis("layers", (2, 4, 8, 16), one_tower),
  "tokens": Axis("image", (64, 128, 256, 512), one_tower, Shape(batch=4)),
  "devices": Axis("devices", (1, 2, 4, 8), one_tower, Shape(batch=32)),
  "objectives": Axis("objectives", (1, 2, 3, 4, 5), many),
  "tasks, all in a step": Axis("tasks", (1, 2, 4), one_tower),
  "tasks, one a step": Axis(
    "tasks",
    (1, 2, 4),
    lambda s: one_tower(s._replace(tasks=1)),
    Shape(),
    "sample",
  ),
  "vocabulary": Axis("vocab", (1024, 4096, 16384), words),
  "codebook": Axis("codes", (512, 2048, 8192, 32768), codes),
}


def x_value(axis: Axis, shape: Shape) -> int:
  """What is on the horizontal axis."""
  return shape.patches if axis.field == "image" else getattr(shape, axis.field)


# Configs.


def config(axis: Axis, s: Shape) -> mlc.ConfigDict:
  """The model of a point, to be resolved."""
  size = dict(
    embed_dim=s.d, num_layers=s.layers, num_heads=s.d // HEAD, mlp_dim=4 * s.d
  )
  c = mlc.ConfigDict()
  c.data = dict(source="synthetic", image=dict(size=s.image))
  c.model = dict(
    encoders=dict(
      image=dict(name="vit", patch_size=PATCH, size=size, pool="mean")
    ),
    precision="float32",
  )
  c.mesh = dict(data=s.devices)
  c.train = dict(num_steps=100, batch_size=s.batch)
  c.optimizer = dict(warmup_steps=0)
  if axis.formula in (words, many):
    c.data.text = dict(
      tokenizer=tokenizer(s.vocab),
      max_tokens=TEXT,
      mask=dict(rate=HIDDEN_RATE),
    )
    c.model.encoders.text = dict(name="text", size=size, pool="mean")
  if axis.formula in (codes, many):
    c.data.image.mask = dict(rate=HIDDEN_RATE, patch_size=PATCH)
  if axis.formula is codes or s.objectives >= 3:
    c.model.visual_tokenizer = dict(
      name="random_projection", patch_size=PATCH, num_codes=s.codes
    )
  tasks(axis, s, c, size)
  return c


def tasks(axis: Axis, s: Shape, c: mlc.ConfigDict, size: dict) -> None:
  """Adds what the model learns."""
  if axis.formula is many:
    names = OBJECTIVES[: s.objectives]
    c.model.shared_dim = D
    if s.objectives >= 2:
      c.model.fusion = dict(name="joint", size=dict(size, num_layers=FUSED))
    if s.objectives >= 5:
      c.model.decoders = dict(
        text=dict(name="text", size=dict(size, num_layers=DECODED))
      )
    c.tasks = dict(main=dict(objectives={n: dict(name=n) for n in names}))
  elif axis.formula is words:
    del c.model.encoders["image"], c.data["image"]
    alone = dict(name="masked_lm", given=())
    c.tasks = dict(main=dict(objectives=dict(mlm=alone)))
  elif axis.formula is codes:
    alone = dict(name="vision_token_prediction", given=())
    c.tasks = dict(main=dict(objectives=dict(vtp=alone)))
  else:
    c.data.label = dict(field="group")
    c.mixture = axis.mixture
    c.tasks = {
      f"task{i}": dict(objectives={f"label{i}": dict(name="classification")})
      for i in range(s.tasks)
    }


def tokenizer(vocab: int) -> str:
  """A file with a vocabulary of this size, learned from letters at random."""
  draw = np.random.default_rng(0)
  letters = draw.integers(97, 123, (vocab * 2, 8), dtype=np.uint8)
  texts = [" ".join(row.tobytes().decode() for row in letters)]
  path = Path(tempfile.gettempdir()) / f"mmjax_random_letters_{vocab}.json"
  path.write_text(tokenizer_train.train(texts, vocab, "bpe"), "utf-8")
  return str(path)
