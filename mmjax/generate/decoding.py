"""Tokens one after the other, in a compiled loop over a cache.

Texts of a batch have lengths of their own: row i of `tokens` holds its prompt
from position 0 on, then what is said, then padding; the next token stands at
position `lengths[i]`, whatever the others do.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from mmjax.generate import sampling
from mmjax.generate.settings import GenerationSettings

Cache = Mapping[str, Any]  # What the decoder keeps of a text, a tree.
# (cache, tokens b n, positions b n) -> logits b n v of what follows each, and
# the cache with them. Positions of a row follow each other.
Step = Callable[[Cache, jax.Array, jax.Array], tuple[jax.Array, Cache]]

PAD = 0  # Written behind texts that have ended.
SMALLEST_BUCKET = 8


@struct.dataclass
class Texts:
  """A batch of texts that are being said."""

  tokens: Int[Array, "b t"]
  lengths: Int[Array, " b"]  # Tokens so far, the prompt's included.
  ended: Bool[Array, " b"]
  logits: Float[Array, "b v"]  # Of the next token.
  cache: Any


def bucket(length: int, most: int) -> int:
  """The power of two that a length is padded to, at most `most`.

  So prompts of similar lengths need one compilation.
  """
  size = SMALLEST_BUCKET
  while size < length:
    size *= 2
  return min(size, most)


def advance(
  step: Step,
  texts: Texts,
  limits: Int[Array, " b"],
  num_steps: Int[Array, ""],
  settings: GenerationSettings,
  *,
  ends: tuple[int, ...],
  never: tuple[int, ...] = (),
) -> Texts:
  """Says up to `num_steps` tokens more of each text.

  Args:
    step: runs the decoder on the tokens just said.
    texts: so far.
    limits: length that each text has at most; it ends there.
    num_steps: may differ from call to call of the compiled function.
    settings: strategy "greedy" or "sample"; a row's draws depend on the seed,
      its number and its length only.
    ends: ids that end a text; it includes the one that it met.
    never: ids that are never said.
  """
  batch_size, room = texts.tokens.shape
  rows = jnp.arange(batch_size)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(
    jax.random.key(settings.seed), rows
  )

  def goes_on(carry):
    count, texts = carry
    return (count < num_steps) & ~jnp.all(texts.ended)

  def body(carry):
    count, texts = carry
    token = next_token(settings, texts, keys, never)
    token = jnp.where(texts.ended, PAD, token)
    # Out of the buffer, so not written, for texts that have ended.
    at = jnp.where(texts.ended, room, texts.lengths)
    tokens = texts.tokens.at[rows, at].set(token, mode="drop")
    lengths = texts.lengths + ~texts.ended
    ended = texts.ended | is_any(token, ends) | (lengths >= limits)
    logits, cache = step(texts.cache, token[:, None], lengths[:, None] - 1)
    texts = Texts(tokens, lengths, ended, logits[:, 0], cache)
    return count + 1, texts

  return jax.lax.while_loop(goes_on, body, (jnp.int32(0), texts))[1]


def next_token(
  settings: GenerationSettings,
  texts: Texts,
  keys: jax.Array,
  never: tuple[int, ...],
) -> Int[Array, " b"]:
  """Picks the next token of each text."""
  logits = ready(settings, texts.logits, texts.tokens, never)
  if settings.strategy == "sample":
    keys = jax.vmap(jax.random.fold_in)(keys, texts.lengths)
    token = sampling.draw(
      logits,
      keys,
      temperature=settings.temperature,
      top_k=settings.top_k,
      top_p=settings.top_p,
    )
  else:
    token = jnp.argmax(logits, axis=-1)
  return token.astype(texts.tokens.dtype)


def ready(
  settings: GenerationSettings,
  logits: Float[Array, "b v"],
  tokens: Int[Array, "b t"],
  never: tuple[int, ...],
) -> Float[Array, "b v"]:
  """Logits in float32 that know what was said, and what never is."""
  logits = logits.astype(jnp.float32)
  if settings.repetition_penalty != 1.0:
    seen = sampling.seen_tokens(tokens, logits.shape[-1])
    logits = sampling.penalize(logits, seen, settings.repetition_penalty)
  return sampling.forbid(logits, never)


def is_any(token: jax.Array, ids: tuple[int, ...]) -> jax.Array:
  """True where a token is one of some ids."""
  found = jnp.zeros(token.shape, bool)
  for i in ids:
    found = found | (token == i)
  return found


def said(
  tokens: np.ndarray, lengths: np.ndarray, starts: np.ndarray
) -> list[list[int]]:
  """The ids that were said, by row, without the prompt."""
  return [
    row[start:length].tolist()
    for row, length, start in zip(tokens, lengths, starts, strict=True)
  ]
