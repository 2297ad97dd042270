"""Decoding with a cache of keys and values, against the whole text each time.

python experiments/performance/decoding.py [TOKENS [REPEATS]]

Captions of a picture of 64 patches by an encoder and a text decoder of four
layers and 256 channels each, greedy, none of them ending early. For 1 and 16
rows: the time to the first token (encoder, prompt and one token) and tokens a
second after it, of all rows together, as median, least and most. Without a
cache the picture is encoded once too, but each token costs a pass over all.
"""

import dataclasses
import statistics
import sys
import time

import jax
import jax.numpy as jnp
import ml_collections as mlc
import numpy as np
from flax import linen as nn

from mmjax.build import experiment, settings
from mmjax.build.generation import Generator
from mmjax.generate.settings import GenerationSettings
from mmjax.train.predict import placement

SIZE = dict(embed_dim=256, num_layers=4, num_heads=4, mlp_dim=1024)
PIXELS, PATCH = 64, 8
BATCHES = (1, 16)


def config(tokens: int) -> mlc.ConfigDict:
  """Captioning, with texts of up to `tokens` tokens."""
  c = mlc.ConfigDict()
  c.data = dict(
    source="synthetic", image=dict(size=PIXELS), text=dict(max_tokens=tokens)
  )
  c.model = dict(
    encoders=dict(image=dict(name="vit", patch_size=PATCH, size=SIZE)),
    decoders=dict(text=dict(name="text", size=SIZE)),
  )
  c.tasks = dict(main=dict(objectives=dict(caption=dict(name="captioning"))))
  c.train = dict(batch_size=1)
  return settings.resolve(c)


class Uncached(Generator):
  """Keeps the tokens and the encoded picture, and reads all of it each time."""

  def _read_prompt(self, variables, fields, *, room):
    texts, starts = super()._read_prompt(variables, fields, room=room)
    call = self._call(variables)
    picture = call(
      "encode", "image", fields["image"], train=False, key="encode"
    )
    kept = dict(tokens=texts.tokens + 0, picture=picture)
    return dataclasses.replace(texts, cache=kept), starts

  def _step(self, variables, room, cache, tokens, positions):
    rows = jnp.arange(len(tokens))[:, None]
    written = cache["tokens"].at[rows, positions].set(tokens)
    call = self._call(variables)
    sequence = call(
      "decode",
      "text",
      written,
      {"image": cache["picture"]},
      train=False,
      key="decode",
    )
    x = jnp.take_along_axis(sequence.x, positions[:, :, None], axis=1)
    logits = call("head", self.decoding.head, x, key="head")
    return logits, {**cache, "tokens": written}


def times(generator, variables, batch, tokens, repeats):
  """Seconds to the first token, and of all those after it."""
  stopped = np.zeros(len(batch["image"]), bool)
  first, rest = [], []
  for _ in range(repeats + 1):
    with placement(generator._mesh, generator._rules):
      start = time.perf_counter()
      texts, limits, *_ = generator._begin(variables, batch)
      texts, shown = generator._advance(variables, texts, limits, 1, stopped)
      jax.block_until_ready(shown)
      first.append(time.perf_counter() - start)
      start = time.perf_counter()
      texts, shown = generator._advance(
        variables, texts, limits, tokens, stopped
      )
      jax.block_until_ready(shown)
      rest.append(time.perf_counter() - start)
  return first[1:], rest[1:]  # The first compiled.


def main(tokens: str = "64", repeats: str = "5") -> None:
  """Prints a table."""
  number = int(tokens)
  made = experiment.prepare(config(number), jax.devices()[:1])
  variables = jax.jit(
    lambda key: nn.meta.unbox(
      experiment.init_variables(key, parts=made.parts, batch_size=1)
    )
  )(jax.random.key(0))
  picture = np.zeros((1, PIXELS, PIXELS, 3), np.uint8)
  print(f"{jax.devices()[0].device_kind}, {number - 1} tokens a text")
  print("| rows | cache | first token, ms | tokens/s |\n|---|---|---|---|")
  for rows in BATCHES:
    batch = {"image": np.repeat(picture, rows, axis=0)}
    for kind in (Generator, Uncached):
      generator = kind(made, GenerationSettings(max_tokens=number))
      generator._ends = ()  # Every text has its full length.
      first, rest = times(generator, variables, batch, number, int(repeats))
      # bos is given, and the first token was timed by itself.
      speeds = [rows * (number - 2) / secs for secs in rest]
      print(
        f"| {rows} | {'yes' if kind is Generator else 'no'} "
        f"| {_spread([1000 * t for t in first])} | {_spread(speeds)} |"
      )


def _spread(values):
  middle = statistics.median(values)
  return f"{middle:.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
  main(*sys.argv[1:])
