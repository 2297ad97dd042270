"""Mixup and CutMix: pictures mixed with others of their batch.

What is made of an example is mixed with one partner; `share` says how much of
it is its own, and so how much its own class counts.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt8


class Mixed(NamedTuple):
  """Pictures of two examples each."""

  images: UInt8[Array, "b h w c"]
  share: Float[Array, " b"]  # 0..1, of the example itself.


def draw(
  rng: jax.Array,
  images: UInt8[Array, "b h w c"],
  counts: Bool[Array, " b"],
  *,
  mixup: float,
  cutmix: float,
) -> Mixed:
  """Mixes each picture with its `partner`, all of them by as much.

  With both, one is drawn for the batch, each as likely. A picture stays as it
  is if its partner does not count.

  Args:
    rng: of the batch.
    images: the batch.
    counts: False where a picture is filler or absent.
    mixup: shares are drawn from Beta(mixup, mixup); 0 = off.
    cutmix: likewise.
  """
  key, choice = jax.random.split(rng)
  if mixup and cutmix:
    made = jax.lax.cond(
      jax.random.bernoulli(choice),
      lambda: mix(key, images, mixup),
      lambda: cut(key, images, cutmix),
    )
  else:
    made = mix(key, images, mixup) if mixup else cut(key, images, cutmix)
  both = counts & partner(counts)
  return Mixed(
    jnp.where(both[:, None, None, None], made.images, images),
    jnp.where(both, made.share, 1.0),
  )


def partner(x: Array) -> Array:
  """What the partners have: the batch from its end, in another order each step.

  The order of a batch is random, so this is no less random than a permutation
  and needs no gathering.
  """
  return jnp.flip(x, axis=0)


def mix(rng: jax.Array, images: UInt8[Array, "b h w c"], alpha: float) -> Mixed:
  """The weighted mean of two pictures. Source: Zhang et al. 2018, eq. 1.

  arXiv:1710.09412. Rounded to what an encoder takes: 256 levels.
  """
  share = jax.random.beta(rng, alpha, alpha)
  own = images.astype(jnp.float32)
  mean = share * own + (1 - share) * partner(own)
  mixed = jnp.round(mean).astype(images.dtype)
  return Mixed(mixed, jnp.broadcast_to(share, images.shape[:1]))


def cut(rng: jax.Array, images: UInt8[Array, "b h w c"], alpha: float) -> Mixed:
  """A rectangle comes from the partner. Source: Yun et al. 2019, eq. 1 and 2.

  arXiv:1905.04899. Its middle is anywhere; what lies outside of the picture
  is cut off, and the share is that of the pixels that are left.
  """
  height, width = images.shape[1:3]
  key_share, key_y, key_x = jax.random.split(rng, 3)
  side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha))
  inside_y = _interval(key_y, height, side)[:, None]  # h 1
  inside_x = _interval(key_x, width, side)[None, :]  # 1 w
  box = inside_y & inside_x  # h w
  mixed = jnp.where(box[None, :, :, None], partner(images), images)
  share = 1 - jnp.mean(box.astype(jnp.float32))
  return Mixed(mixed, jnp.broadcast_to(share, images.shape[:1]))


def _interval(
  rng: jax.Array, size: int, side: Float[Array, ""]
) -> Bool[Array, " size"]:
  """The pixels of one side that are inside of the rectangle."""
  middle = jax.random.randint(rng, (), 0, size)
  half = jnp.floor(side * size / 2).astype(jnp.int32)
  place = jnp.arange(size)
  return (place >= middle - half) & (place < middle + half)
