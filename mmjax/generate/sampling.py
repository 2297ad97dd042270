"""The next token from its logits: pure functions, row by row."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

NEVER = -jnp.inf  # Logit of a token that must not come.


def penalize(
  logits: Float[Array, "b v"], seen: Bool[Array, "b v"], penalty: float
) -> Float[Array, "b v"]:
  """Makes tokens that were seen less likely: penalty > 1.

  Source: Keskar et al. 2019 (arXiv:1909.05858), 4.1, where a logit is divided;
  a negative one, which that would raise, is multiplied instead.
  """
  lower = jnp.where(logits > 0, logits / penalty, logits * penalty)
  return jnp.where(seen, lower, logits)


def forbid(
  logits: Float[Array, "b v"], ids: tuple[int, ...]
) -> Float[Array, "b v"]:
  """Tokens that never come, such as padding."""
  if not ids:
    return logits
  return logits.at[:, jnp.asarray(ids)].set(NEVER)


def keep_top_k(logits: Float[Array, "b v"], k: int) -> Float[Array, "b v"]:
  """Only the k most likely tokens, and what is as likely as the last of them.

  Source: Fan et al. 2018 (arXiv:1805.04833), 5.
  """
  k = min(k, logits.shape[-1])
  lowest = jax.lax.top_k(logits, k)[0][:, -1:]  # b 1
  return jnp.where(logits >= lowest, logits, NEVER)


def keep_top_p(logits: Float[Array, "b v"], p: float) -> Float[Array, "b v"]:
  """Only the fewest tokens that together have the probability p.

  Source: Holtzman et al. 2020 (arXiv:1904.09751), eq. 2 and 3.
  """
  order = jnp.argsort(-logits, axis=-1, stable=True)
  ranked = jnp.take_along_axis(jax.nn.softmax(logits), order, axis=-1)
  before = jnp.cumsum(ranked, axis=-1) - ranked
  # The first always stays: nothing is before it.
  kept = jnp.take_along_axis(before < p, jnp.argsort(order, axis=-1), axis=-1)
  return jnp.where(kept, logits, NEVER)


def draw(
  logits: Float[Array, "b v"],
  keys: Key[Array, " b"],
  *,
  temperature: float = 1.0,
  top_k: int = 0,
  top_p: float = 1.0,
) -> Int[Array, " b"]:
  """Draws a token from softmax(logits / temperature), each row by its key.

  Args:
    logits: of the next token.
    keys: one for each row, so that no row depends on the others.
    temperature: above 0; below 1 what is likely gets more so.
    top_k: only so many tokens; 0 = all.
    top_p: then, only the fewest with this probability.
  """
  logits = logits.astype(jnp.float32) / temperature
  if top_k:
    logits = keep_top_k(logits, top_k)
  if top_p < 1.0:
    logits = keep_top_p(logits, top_p)
  return jax.vmap(jax.random.categorical)(keys, logits)


def seen_tokens(
  tokens: Int[Array, "b t"], vocab_size: int
) -> Bool[Array, "b v"]:
  """True for the tokens that a text has; padding counts as one of them."""
  none = jnp.zeros((len(tokens), vocab_size), bool)
  return jax.vmap(lambda row, ids: row.at[ids].set(True))(none, tokens)
