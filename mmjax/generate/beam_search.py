"""The most likely text, by keeping the best few of each length."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int

from mmjax.core import trees
from mmjax.generate import decoding
from mmjax.generate.decoding import Step, Texts
from mmjax.generate.settings import GenerationSettings

NEVER = -jnp.inf


@struct.dataclass
class Found:
  """Whole texts, the best first."""

  tokens: Int[Array, "b n t"]
  lengths: Int[Array, "b n"]  # With the prompt.
  scores: Float[Array, "b n"]  # See `search`; -inf = there is no such text.


@struct.dataclass
class _Beams:
  """Texts that go on: `b k` of them, as rows `(b k)` of tokens and cache."""

  texts: Texts
  log_probs: Float[Array, "b k"]  # Of what was said; -inf = none.
  found: Found


def search(
  step: Step,
  texts: Texts,
  limits: Int[Array, " b"],
  settings: GenerationSettings,
  *,
  ends: tuple[int, ...],
  never: tuple[int, ...] = (),
  num_best: int = 1,
) -> Found:
  """Searches for the texts of the highest score.

  The score is log P(said) / ((5 + |said|) / 6)^length_penalty, |said| counts
  the end. Source: Wu et al. 2016 (arXiv:1609.08144), eq. 14, without coverage.
  A text that is cut at its limit competes as it is. Of each length, the
  `beam_size` most likely texts are kept; a row is done when none of those can
  reach the `num_best` that were found.

  Args:
    step: runs the decoder, on rows `(b k)`.
    texts: the prompts.
    limits: length that each text has at most.
    settings: `beam_size`, `length_penalty` and `repetition_penalty`.
    ends: ids that end a text.
    never: ids that are never said.
    num_best: texts to return.
  """
  b, room = texts.tokens.shape
  k = settings.beam_size
  starts = texts.lengths
  cache = take_rows(texts.cache, jnp.repeat(jnp.arange(b), k))
  texts = jax.tree.map(
    lambda x: jnp.repeat(x, k, axis=0), texts.replace(cache=None)
  )
  beams = _Beams(
    texts.replace(cache=cache),
    # One of the copies: the others are the same text.
    jnp.full((b, k), NEVER).at[:, 0].set(0.0),
    Found(
      jnp.zeros((b, num_best, room), texts.tokens.dtype),
      jnp.zeros((b, num_best), texts.lengths.dtype),
      jnp.full((b, num_best), NEVER),
    ),
  )

  def penalty(length):
    return ((5.0 + length) / 6.0) ** settings.length_penalty

  def goes_on(beams):
    return jnp.any(beams.log_probs > NEVER)

  def body(beams):
    texts = beams.texts
    logits = decoding.ready(settings, texts.logits, texts.tokens, never)
    log_probs = jax.nn.log_softmax(logits).reshape(b, k, -1)
    total = beams.log_probs[:, :, None] + log_probs  # b k v
    tokens = texts.tokens.reshape(b, k, room)
    lengths = texts.lengths.reshape(b, k)
    length = (lengths - starts[:, None] + 1).astype(jnp.float32)  # b k

    found = beams.found
    for end in ends:
      found = _add(
        found,
        Found(
          _write(tokens, lengths, jnp.full((b, k), end)),
          lengths + 1,
          total[:, :, end] / penalty(length),
        ),
      )
      total = total.at[:, :, end].set(NEVER)

    log_probs, best = jax.lax.top_k(total.reshape(b, -1), k)
    parents, token = jnp.divmod(best, total.shape[2])  # b k
    tokens = jnp.take_along_axis(tokens, parents[:, :, None], axis=1)
    lengths = jnp.take_along_axis(lengths, parents, axis=1)
    tokens, lengths = _write(tokens, lengths, token), lengths + 1

    cut = lengths >= limits[:, None]
    scores = jnp.where(cut, log_probs / penalty(length), NEVER)
    found = _add(found, Found(tokens, lengths, scores))
    log_probs = jnp.where(cut, NEVER, log_probs)
    # What a text can still reach: all that follows is certain.
    most = (limits - starts).astype(jnp.float32)[:, None]
    hopeless = log_probs / penalty(most) <= found.scores[:, -1:]
    log_probs = jnp.where(hopeless, NEVER, log_probs)

    parents = (parents + k * jnp.arange(b)[:, None]).reshape(-1)  # (b k)
    # Rows that are done go on growing, unseen, but not beyond the cache.
    at = jnp.minimum(lengths, room).reshape(-1, 1) - 1
    logits, cache = step(
      take_rows(texts.cache, parents),
      token.reshape(-1, 1).astype(tokens.dtype),
      at,
    )
    texts = Texts(
      tokens.reshape(b * k, room),
      lengths.reshape(b * k),
      texts.ended,
      logits[:, 0],
      cache,
    )
    return _Beams(texts, log_probs, found)

  return jax.lax.while_loop(goes_on, body, beams).found


def take_rows(cache: decoding.Cache, rows: Int[Array, " r"]) -> decoding.Cache:
  """The cache of some examples, in another order, or of one several times.

  The example is the first axis of each array; of `keys` and `values`, of which
  scanned layers have one more in front, the fourth from the end.
  """

  def take(name, leaf):
    of_attention = name.split("/")[-1] in ("keys", "values")
    return jnp.take(leaf, rows, axis=leaf.ndim - 4 if of_attention else 0)

  return trees.map_names(take, cache)


def _write(tokens, lengths, token):
  """Appends a token to each text, if there is room."""
  index = jnp.arange(tokens.shape[2])[None, None]  # 1 1 t
  here = index == lengths[:, :, None]
  return jnp.where(here, token[:, :, None].astype(tokens.dtype), tokens)


def _add(found: Found, more: Found) -> Found:
  """The best of both."""
  scores = jnp.concatenate([found.scores, more.scores], axis=1)
  scores, best = jax.lax.top_k(scores, found.scores.shape[1])
  tokens = jnp.concatenate([found.tokens, more.tokens], axis=1)
  lengths = jnp.concatenate([found.lengths, more.lengths], axis=1)
  return Found(
    jnp.take_along_axis(tokens, best[:, :, None], axis=1),
    jnp.take_along_axis(lengths, best, axis=1),
    scores,
  )
