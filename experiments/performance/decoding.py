"""Decoding with a cache of keys and values, against the whole text each time.

python experiments/performance/decoding.py [TOKENS [REPEATS]]

Captions of a picture of 64 patches by an encoder and a text decoder of four
layers and 256 channels each, greedy, none of them ending early. For 1 and 16
rows: the time to the first token (encoder, prompt and one token) and tokens a
second of all whole texts together, as median, least and most. Without a
cache the picture is encoded once too, but each token costs a pass over all.
How fast a config of yours decodes: `mmjax bench generate --config=C`.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import ml_collections as mlc
from flax import linen as nn

from mmjax.bench import generation as bench
from mmjax.build import experiment, settings
from mmjax.build.generation import Generator
from mmjax.generate.settings import GenerationSettings

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


def main(tokens: str = "64", repeats: str = "5") -> None:
  """Prints a table."""
  number = int(tokens)
  made = experiment.prepare(config(number), jax.devices()[:1])
  variables = jax.jit(
    lambda key: nn.meta.unbox(
      experiment.init_variables(key, parts=made.parts, batch_size=1)
    )
  )(jax.random.key(0))
  said = number - 1  # bos is given.
  print(f"{jax.devices()[0].device_kind}, {said} tokens a text")
  print("| rows | cache | first token, ms | tokens/s |\n|---|---|---|---|")
  for rows in BATCHES:
    for kind in (Generator, Uncached):
      generator = kind(made, GenerationSettings(max_tokens=said))
      generator.ends = ()  # Every text has its full length.
      samples = [
        bench.sample(generator, variables, rows, 1)
        for _ in range(int(repeats) + 1)
      ][1:]  # The first compiled.
      found = bench.figures(rows, samples, said)
      print(
        f"| {rows} | {'yes' if kind is Generator else 'no'} "
        f"| {_spread(found['first_token_secs'], 1000)} "
        f"| {_spread(found['tokens_per_sec'], 1)} |"
      )


def _spread(found, unit):
  middle, least, most = (
    unit * found[name] for name in ("median", "least", "most")
  )
  return f"{middle:.1f} ({least:.1f} to {most:.1f})"


if __name__ == "__main__":
  main(*sys.argv[1:])
