"""Matching: does this text belong to this picture?"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt

from mmjax.core import errors
from mmjax.core.batch import Batch, modality_fields
from mmjax.core.interfaces import LossTerm
from mmjax.core.sequence import CLS, Sequence
from mmjax.objectives import losses, pairs, ring

NEGATIVES = ("hard", "random")
CANDIDATES = ("global", "micro_batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matching:
  """Tells pairs from two sides that were put together, after their fusion.

  Source: ALBEF (Li et al. 2021, arXiv:2107.07651), 3.2. Each example gives
  three decisions: itself, its first side with the second one of another
  example, and the other way round. "hard" negatives are drawn by the
  similarities in the shared space, over the whole batch. What equals the
  example on one side is no negative of it.

  Decided on the mean of all tokens, or on the class token of the fusion if it
  has one. The encoders run once; what negatives cost is two more passes of the
  fusion. Over several devices each encoded sequence travels once round all of
  them.

  Raises:
    UserError: unknown kind of negatives or candidates, or not two modalities.
  """

  modalities: tuple[str, ...] = ("image", "text")
  view: str = "clean"  # "masked" shares the pass of masked prediction.
  negatives: str = "hard"  # "random" needs no shared space.
  candidates: str = "global"  # "micro_batch" allows train.accumulate > 1.
  head: str = "matching"
  head_tanh: bool = False  # See `models.heads.LinearHead`.
  chunk: int = 0  # Rows of similarities at a time on a device; 0 = automatic.

  def __post_init__(self):
    if self.negatives not in NEGATIVES:
      raise errors.unknown("kind of negatives", self.negatives, NEGATIVES)
    if self.candidates not in CANDIDATES:
      raise errors.unknown("candidates", self.candidates, CANDIDATES)
    if len(set(self.modalities)) != 2:
      raise errors.UserError(
        f"modalities={self.modalities}, expected two different ones."
      )
    if self.chunk < 0:
      raise errors.UserError(f"chunk={self.chunk}, expected 0 or more.")

  @property
  def couples_examples(self) -> bool:
    """Micro-batches have other negatives than one large batch."""
    return self.candidates == "global"

  def __call__(self, apply, batch, *, rng, train: bool):
    first, second = self.modalities
    mask = losses.counted(batch, self.modalities, batch[first])
    fused = apply("fuse", tuple(sorted(self.modalities)), view=self.view)
    own = {m: apply("encode", m, view=self.view) for m in self.modalities}
    decisions = [self._decide(apply, fused, mask, True)]
    drawn = self._draw(apply, batch, mask, rng)
    for side, other in zip((second, first), drawn, strict=True):
      sequences = {**own, side: _take(own[side], other.partner)}
      fused = apply("fuse_pairs", f"other_{side}", sequences, train)
      decisions.append(self._decide(apply, fused, mask & other.found, False))
    return _sum(d[0] for d in decisions), {
      "accuracy": _sum(d[1] for d in decisions)
    }

  def _draw(self, apply, batch, mask, rng):
    """A second side for each first, and a first for each second."""
    first, second = self.modalities
    if self.negatives == "hard":
      a, b = (apply("project", m, view=self.view) for m in self.modalities)
      scale = apply("temperature")["scale"]
    else:
      a = b = jnp.zeros((mask.shape[0], 1))  # All are as similar.
      scale = jnp.ones(())
    a, b, scale = jax.lax.stop_gradient((a, b, scale))
    ids = (_identity(batch, first), _identity(batch, second))
    return pairs.draw(a, b, scale, mask, ids, rng, chunk=self.chunk)

  def _decide(self, apply, fused, mask, belongs):
    """Loss and accuracy of the decisions on fused pairs."""
    if CLS in fused:
      pooled = fused[CLS].x[:, 0]
    else:
      pooled = sum(_mean(s) for s in fused.values()) / len(fused)
    pooled = jnp.where(mask[:, None], pooled, 0.0)
    logits = apply("head", self.head, pooled)  # b 2
    labels = jnp.full(mask.shape, int(belongs), jnp.int32)
    return (
      losses.masked_sum(losses.cross_entropy(logits, labels), mask),
      losses.accuracy(logits, labels, mask),
    )

  def fields(self, info):
    del info
    return modality_fields(*self.modalities)

  def heads(self, info):
    del info
    head: dict[str, Any] = {"name": "linear", "num_classes": 2}
    if self.head_tanh:
      head["tanh"] = True
    return {self.head: head}

  def chance(self, info, batch_size):
    """Ln 2: belonging and not are as likely."""
    del info, batch_size
    return math.log(2)


def _mean(sequence: Sequence) -> Float[Array, "b d"]:
  """Mean of the tokens that count, in float32."""
  mask = sequence.mask[:, :, None]
  total = jnp.sum(jnp.where(mask, sequence.x.astype(jnp.float32), 0.0), axis=1)
  return total / jnp.maximum(jnp.sum(mask, axis=1), 1)


def _take(sequence: Sequence, index: Array) -> Sequence:
  """The sequences of other examples."""
  size = sequence.x.shape[0]
  leaves, shape = jax.tree.flatten(sequence)
  mine = [i for i, x in enumerate(leaves) if x.shape[0] == size]
  taken = ring.take([leaves[i] for i in mine], index)
  for i, x in zip(mine, taken, strict=True):
    leaves[i] = x
  # The rest, coordinates of a fixed grid, is the same in all examples.
  return jax.tree.unflatten(shape, leaves)


def _identity(batch: Batch, field: str) -> UInt[Array, " b"]:
  """A number for what stands in a field, where it counts.

  The same for the same content, whatever its place in the batch; for other
  content hardly ever.
  """
  x = batch[field]
  if jnp.issubdtype(x.dtype, jnp.floating):
    x = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
  x = x.astype(jnp.uint32)
  mask = batch.get(f"{field}_mask")
  if mask is not None:
    x = jnp.where(jnp.expand_dims(mask, tuple(range(mask.ndim, x.ndim))), x, 0)
  x = x.reshape(x.shape[0], -1)
  factors = jax.random.bits(jax.random.key(0), x.shape[1:], jnp.uint32) | 1
  return jnp.sum(x * factors[None], axis=1, dtype=jnp.uint32)


def _sum(terms) -> LossTerm:
  terms = list(terms)
  return LossTerm(sum(t.total for t in terms), sum(t.weight for t in terms))
