"""FLOPs of five objectives in one step of a B-size model, against the least.

python experiments/performance/five_objectives.py [EXAMPLES [compile]]

Masked words, vision tokens, contrast, matching and captioning on ViT-B/16 at
224 pixels and a text encoder of the same size. The least is a formula: each
encoder once a view (masked, clean), each fused set once, times 3 for the
backward pass. With `compile`, XLA's own count of the compiled step too.
"""

import sys

import jax
import ml_collections as mlc

from mmjax.build import experiment, settings

PATCHES, TOKENS = 196, 64
D, MLP, VOCAB, CODES, SHARED = 768, 3072, 2048, 8192, 512
LAYERS, FUSED, DECODED = 12, 3, 6
HIDDEN_PATCHES, HIDDEN_TOKENS = 98, 10


def config(examples: int) -> mlc.ConfigDict:
  """The five objectives, nothing dropped, layers not scanned."""
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic",
    image=dict(size=224, mask=dict(rate=0.5, patch_size=16)),
    text=dict(tokenizer="starter", max_tokens=TOKENS, mask=dict(rate=0.15)),
  )
  c.model = dict(
    encoders=dict(
      image=dict(name="vit", patch_size=16, size="B"),
      text=dict(name="text", size="B"),
    ),
    fusion=dict(name="joint", size=_size(FUSED)),
    decoders=dict(text=dict(name="text", size=_size(DECODED))),
    visual_tokenizer=dict(
      name="random_projection", patch_size=16, num_codes=CODES
    ),
    shared_dim=SHARED,
  )
  names = (
    "masked_lm",
    "vision_token_prediction",
    "contrastive",
    "matching",
    "captioning",
  )
  c.tasks = dict(main=dict(objectives={n: dict(name=n) for n in names}))
  c.train = dict(batch_size=examples)
  return settings.resolve(c)


def _size(layers):
  return dict(embed_dim=D, num_layers=layers, num_heads=12, mlp_dim=MLP)


def layers(count: int, tokens: int, context: int = 0) -> float:
  """Forward FLOPs of a stack: projections, attention, feed-forward."""
  own = 2 * tokens * (4 * D * D + 2 * D * MLP) + 4 * tokens * tokens * D
  cross = 4 * D * D * (tokens + context) + 4 * tokens * context * D
  return count * (own + (cross if context else 0))


def least() -> float:
  """Training FLOPs per example, by formula."""
  encoders = layers(LAYERS, PATCHES) + layers(LAYERS, TOKENS)
  fused = layers(FUSED, PATCHES + TOKENS)
  decoded = layers(DECODED, TOKENS, PATCHES)
  heads = 2 * HIDDEN_TOKENS * D * (D + VOCAB)
  heads += 2 * HIDDEN_PATCHES * D * (D + CODES)
  heads += 2 * (TOKENS - 1) * D * VOCAB
  heads += 2 * 2 * D * SHARED
  # Two views of each encoder; the masked pair, and three of matching.
  forward = 2 * encoders + 4 * fused + decoded + heads
  # The stem needs no gradient of its pixels.
  stem = 2 * PATCHES * (16 * 16 * 3) * D
  return 3 * forward + 2 * 2 * stem


def main(examples: str = "4", compiled: str = "") -> None:
  """Prints both counts and their ratio."""
  made = experiment.prepare(config(int(examples)), jax.devices()[:1])
  counted = made.flops_per_example
  print(
    f"step {counted / 1e9:.2f} GFLOPs per example, least {least() / 1e9:.2f}: "
    f"ratio {counted / least():.4f}"
  )
  if compiled:
    analysis = made.lower_step().compile().cost_analysis()
    xla = analysis["flops"] / int(examples)
    print(f"XLA {xla / 1e9:.2f} GFLOPs per example: ratio {xla / least():.4f}")


if __name__ == "__main__":
  main(*sys.argv[1:])
