"""How likely given texts are, to choose one of them."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.generate.decoding import Step, Texts


def log_likelihoods(
  step: Step,
  texts: Texts,
  answers: Int[Array, "a n"],
  mask: Bool[Array, "a n"],
) -> Float[Array, "b a"]:
  """Log P(answer | prompt), nats, summed over the tokens that count.

  The prompt is read once; each answer goes on from its cache.

  Args:
    step: runs the decoder on the tokens of an answer.
    texts: the prompts.
    answers: ids, the end included, padded.
    mask: True = counts.
  """

  def score(answer):
    ids, counts = answer
    tokens = jnp.broadcast_to(ids[None], (len(texts.tokens), len(ids)))
    index = jnp.arange(len(ids), dtype=texts.lengths.dtype)
    positions = texts.lengths[:, None] + index[None]
    following, _ = step(texts.cache, tokens, positions)
    # What stood before each token: the prompt's end, then the answer itself.
    logits = jnp.concatenate([texts.logits[:, None], following[:, :-1]], axis=1)
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    each = jnp.take_along_axis(log_probs, tokens[:, :, None], axis=2)[:, :, 0]
    return jnp.sum(jnp.where(counts[None], each, 0.0), axis=1)

  return jax.lax.map(score, (answers, mask)).T
