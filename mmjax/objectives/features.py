"""Features of a model that learned elsewhere."""

import dataclasses

import jax.numpy as jnp

from mmjax.core.batch import modality_fields
from mmjax.objectives import losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Features:
  """Encodes and pools, and learns nothing: its loss is zero.

  A model has the parameters that its objectives use. With this one an encoder
  that was converted has all of its own, whatever data there are; evaluators
  and other runs then use it.
  """

  modality: str = "image"
  given: tuple[str, ...] = ()  # Modalities that it is fused with first.
  outputs: int = 0  # Classes of a linear head on what is pooled; 0 = no head.
  head: str = "label"
  head_kind: str = "linear"  # See `models.heads`.

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    given = [self.given] if self.given else []
    pooled = apply("pool", self.modality, *given)  # b d
    used = pooled
    if self.outputs:
      used = apply("head", self.head, pooled)  # b v
    mask = losses.counted(batch, (self.modality, *self.given), pooled)  # b
    nothing = 0.0 * jnp.sum(used.astype(jnp.float32), axis=-1)  # b
    norms = jnp.linalg.norm(pooled.astype(jnp.float32), axis=-1)  # b
    loss = losses.masked_sum(nothing, mask)
    return loss, {"norm": losses.masked_sum(norms, mask)}

  def fields(self, info):
    del info
    return modality_fields(self.modality, *self.given)

  def heads(self, info):
    del info
    if not self.outputs:
      return {}
    return {self.head: {"name": self.head_kind, "num_classes": self.outputs}}

  def chance(self, info, batch_size):
    """Nothing is learned."""
    del info, batch_size
    return None
