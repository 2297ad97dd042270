"""Contrastive alignment of two modalities."""

import dataclasses
import math

import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.objectives import losses

NEGATIVES = ("global", "micro_batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive:
  """Pulls the two sides of a pair together, pushes other pairs apart.

  Source: CLIP (Radford et al. 2021, arXiv:2103.00020), 2.3. Negatives are
  all other examples of the batch, over all devices and hosts.

  Raises:
    UserError: unknown kind of negatives.
  """

  modalities: tuple[str, str] = ("image", "text")
  # View of each: "masked" for pictures leaves out their hidden patches, which
  # saves that share of the work (FLIP, Li et al. 2023, arXiv:2212.00794).
  views: tuple[str, str] = ("clean", "clean")
  negatives: str = "global"  # "micro_batch" allows train.accumulate > 1.

  def __post_init__(self):
    if self.negatives not in NEGATIVES:
      raise errors.unknown("kind of negatives", self.negatives, NEGATIVES)

  @property
  def couples_examples(self) -> bool:
    """Micro-batches differ from one large batch, unless that is wanted."""
    return self.negatives == "global"

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    a, b = (
      apply("project", modality, view=view)
      for modality, view in zip(self.modalities, self.views, strict=True)
    )  # b s
    scale = apply("temperature")["scale"]
    mask = losses.example_mask(batch, a)
    loss = losses.info_nce(a, b, scale, mask)
    logits = jnp.where(mask[None, :], a @ b.T, -jnp.inf)
    own = jnp.arange(a.shape[0])
    return loss, {
      "accuracy": losses.accuracy(logits, own, mask),
      "scale": losses.constant(scale),
    }

  def fields(self, info):
    del info
    return modality_fields(*self.modalities)

  def heads(self, info):
    del info
    return {}

  def chance(self, info, batch_size):
    """Ln B: every example of the global batch is as likely."""
    del info
    return math.log(batch_size)
