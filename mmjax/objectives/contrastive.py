"""Contrastive alignment of modalities."""

import dataclasses
import itertools
import math

import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses

NEGATIVES = ("global", "micro_batch")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrastive:
  """Pulls the sides of a pair together, pushes other pairs apart.

  Source: CLIP (Radford et al. 2021, arXiv:2103.00020), 2.3. Negatives are
  all other examples of the batch, over all devices and hosts. With more than
  two modalities, the mean over all pairs that examples have.

  Raises:
    UserError: unknown kind of negatives, fewer than two modalities, or not
      one view for each.
  """

  modalities: tuple[str, ...] = ("image", "text")
  # View of each: "masked" for pictures leaves out their hidden patches, which
  # saves that share of the work (FLIP, Li et al. 2023, arXiv:2212.00794);
  # "second" for another look at the same thing: two views of "image" are
  # SimCLR's pairs (Chen et al. 2020, arXiv:2002.05709). Empty: all clean.
  views: tuple[str, ...] = ()
  negatives: str = "global"  # "micro_batch" allows train.accumulate > 1.

  def __post_init__(self):
    if self.negatives not in NEGATIVES:
      raise errors.unknown("kind of negatives", self.negatives, NEGATIVES)
    if len(self.modalities) < 2:
      raise errors.UserError(
        f"modalities={self.modalities}, expected at least two."
      )
    if self.views and len(self.views) != len(self.modalities):
      raise errors.UserError(
        f"views={self.views}, expected one for each of {self.modalities}."
      )

  @property
  def couples_examples(self) -> bool:
    """Micro-batches differ from one large batch, unless that is wanted."""
    return self.negatives == "global"

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    views = self.views or ("clean",) * len(self.modalities)
    sides = [
      (modality, apply("project", modality, view=view))
      for modality, view in zip(self.modalities, views, strict=True)
    ]  # b s
    scale = apply("temperature")["scale"]
    terms, metrics = [], {"scale": losses.constant(scale)}
    for (first, a), (second, b) in itertools.combinations(sides, 2):
      mask = losses.counted(batch, (first, second), a)
      terms.append(losses.info_nce(a, b, scale, mask))
      logits = jnp.where(mask[None, :], a @ b.T, -jnp.inf)
      own = jnp.arange(a.shape[0])
      pair = "" if len(self.modalities) == 2 else f"/{first}_{second}"
      metrics[f"accuracy{pair}"] = losses.accuracy(logits, own, mask)
    total = LossTerm(sum(t.total for t in terms), sum(t.weight for t in terms))
    return total, metrics

  def fields(self, info):
    del info
    specs = modality_fields(*self.modalities)
    for modality, view in zip(self.modalities, self.views, strict=False):
      if view == "second":
        specs[f"{modality}_second"] = specs[modality]
    return specs

  def heads(self, info):
    del info
    return {}

  def chance(self, info, batch_size):
    """Ln B: every example of the global batch is as likely."""
    del info
    return math.log(batch_size)
