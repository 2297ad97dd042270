"""Learning-rate schedules: step -> factor, with a linear warm-up."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from mmjax.core import errors

Schedule = Callable[[jax.Array | int], jax.Array]


def _constant(done, step, warmup_steps):
  del step, warmup_steps
  return jnp.ones_like(done)


def _cosine(done, step, warmup_steps, *, end):
  del step, warmup_steps
  return end + (1 - end) * 0.5 * (1 + jnp.cos(jnp.pi * done))


def _rsqrt(done, step, warmup_steps):
  del done
  start = jnp.maximum(warmup_steps, 1)
  return jnp.sqrt(start / jnp.maximum(step, start))


def schedule(
  kind: str,
  *,
  peak_lr: float,
  warmup_steps: int,
  num_steps: int,
  end_factor: float = 0.0,
) -> Schedule:
  """Returns the learning rate as a function of the optimizer step.

  Args:
    kind: "constant", "cosine" (down to `end_factor` of the peak; Loshchilov
      & Hutter 2017) or "rsqrt" (Vaswani et al. 2017, 5.3).
    peak_lr: highest learning rate.
    warmup_steps: steps of linear growth from 0.
    num_steps: optimizer steps of the run.
    end_factor: of "cosine".

  Raises:
    UserError: unknown kind, or a warm-up longer than the run.
  """
  if not 0 <= warmup_steps <= num_steps:
    raise errors.UserError(
      f"optimizer.warmup_steps={warmup_steps}, expected 0 to "
      f"train.num_steps={num_steps}."
    )
  shapes: dict[str, Callable[..., jax.Array]] = {
    "constant": _constant,
    "rsqrt": _rsqrt,
    "cosine": functools.partial(_cosine, end=end_factor),
  }
  if kind not in shapes:
    raise errors.unknown("schedule", kind, shapes)

  def learning_rate(step):
    step = jnp.asarray(step, jnp.float32)
    left = max(num_steps - warmup_steps, 1)
    done = jnp.clip((step - warmup_steps) / left, 0.0, 1.0)
    # The first step counts: at step 0 the rate is one notch above 0.
    warmup = jnp.minimum(1.0, (step + 1) / max(warmup_steps, 1))
    return peak_lr * warmup * shapes[kind](done, step, warmup_steps)

  return learning_rate
