"""All codes of a picture in a few steps, many at once.

Source: MaskGIT (Chang et al. 2022, arXiv:2202.04200), 3.2 and its released
code, which adds the noise. Of an empty picture, every step predicts all codes
that are not known, draws each, and keeps those it is surest of; the others are
drawn again in the next step, given more.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int, Key

from mmjax.core import errors

# (codes, which of them are unknown) -> logits. Unknown codes are 0.
Logits = Callable[
  [Int[Array, "b n"], Bool[Array, "b n"]], Float[Array, "b n v"]
]


@struct.dataclass
class Decoded:
  """Codes, and how they came about."""

  codes: Int[Array, "b n"]
  steps: Int[Array, "b n"]  # In which step each was decided, from 0.


def unknown_counts(num_tokens: int, num_steps: int) -> tuple[int, ...]:
  """How many codes are unknown after each step: cosine schedule, last 0.

  Source: Chang et al. 2022, 3.2 and 3.3: ceil(cos(pi t / (2 T)) N). Where
  that would decide nothing in a step, now or later, one code is decided.

  Raises:
    UserError: fewer codes than steps, or no step.
  """
  if not 1 <= num_steps <= num_tokens:
    raise errors.UserError(
      f"steps={num_steps}, expected 1 to {num_tokens}, the number of codes of "
      "a picture: each step decides at least one."
    )
  counts, left = [], num_tokens
  for step in range(1, num_steps):
    share = math.cos(math.pi * step / (2 * num_steps))
    wanted = math.ceil(share * num_tokens - 1e-9)  # cos(60 deg) is above 0.5.
    left = max(num_steps - step, min(left - 1, wanted))
    counts.append(left)
  return (*counts, 0)


def decode(
  logits_of: Logits,
  keys: Key[Array, " b"],
  num_tokens: int,
  *,
  num_steps: int = 12,
  temperature: float = 1.0,
  choice_temperature: float = 4.5,
) -> Decoded:
  """Draws codes from what a model thinks of each, given those it drew before.

  Args:
    logits_of: the model; called once a step.
    keys: of each example: what becomes of one depends on no other.
    num_tokens: codes an example.
    num_steps: calls of the model.
    temperature: divides the logits; 0 = the most likely code.
    choice_temperature: of the noise on how sure a code is, which ends at 0
      with the last step. 0 = the surest codes are kept, which favours what is
      frequent; infinite = random ones, so that draws keep their probability.

  Raises:
    UserError: fewer codes than steps, or a temperature below 0.
  """
  for name, value in (
    ("temperature", temperature),
    ("choice_temperature", choice_temperature),
  ):
    if not value >= 0.0:
      raise errors.UserError(f"{name}={value}, expected 0 or more.")
  counts = unknown_counts(num_tokens, num_steps)
  before = (num_tokens, *counts[:-1])
  decided = [b - a for b, a in zip(before, counts, strict=True)]
  # In the last step everything is kept, noise or not.
  noises = [
    choice_temperature * (1.0 - (step + 1) / num_steps)
    for step in range(num_steps - 1)
  ]

  def one_step(state, inputs):
    codes, unknown, steps = state
    step, number, noise = inputs
    key = jax.vmap(jax.random.fold_in, (0, None))(keys, step)  # b
    drawn, sureness = _draw(key, logits_of(codes, unknown), temperature)
    kept = _surest(key, sureness, unknown, number, noise)
    state = (
      jnp.where(kept, drawn, codes),
      unknown & ~kept,
      jnp.where(kept, step, steps),
    )
    return state, None

  shape = (keys.shape[0], num_tokens)
  start = (
    jnp.zeros(shape, jnp.int32),
    jnp.ones(shape, bool),
    jnp.full(shape, -1, jnp.int32),
  )
  inputs = (
    jnp.arange(num_steps, dtype=jnp.int32),
    jnp.asarray(decided, jnp.int32),
    jnp.asarray([*noises, 0.0], jnp.float32),
  )
  (codes, _, steps), _ = jax.lax.scan(one_step, start, inputs)
  return Decoded(codes, steps)


def _draw(
  keys: Key[Array, " b"], logits: Float[Array, "b n v"], temperature: float
) -> tuple[Int[Array, "b n"], Float[Array, "b n"]]:
  """A code for each position, and the log of its probability."""
  logits = logits.astype(jnp.float32)
  if temperature > 0.0:
    logits = logits / temperature
    drawn = jax.vmap(jax.random.categorical)(_streams(keys, 0), logits)
  else:
    drawn = jnp.argmax(logits, axis=-1)
  log_probs = jax.nn.log_softmax(logits, axis=-1)
  taken = jnp.take_along_axis(log_probs, drawn[:, :, None], axis=-1)
  return drawn.astype(jnp.int32), taken[:, :, 0]


def _surest(
  keys: Key[Array, " b"],
  sureness: Float[Array, "b n"],
  unknown: Bool[Array, "b n"],
  number: Int[Array, ""],
  noise: Float[Array, ""],
) -> Bool[Array, "b n"]:
  """Which of the unknown codes are kept: so many, the surest after noise."""
  n = sureness.shape[1]
  gumbel = jax.vmap(lambda key: jax.random.gumbel(key, (n,)))(_streams(keys, 1))
  noisy = jnp.where(jnp.isinf(noise), gumbel, sureness + noise * gumbel)
  order = jnp.argsort(-jnp.where(unknown, noisy, -jnp.inf), axis=1)
  rank = jnp.argsort(order, axis=1)  # 0 = the surest.
  return unknown & (rank < number)


def _streams(keys, number):
  return jax.vmap(jax.random.fold_in, (0, None))(keys, number)
