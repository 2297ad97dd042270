"""Classification of one modality, or of it after fusion with others."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import MODALITIES, FieldSpec, modality_fields
from mmjax.core.interfaces import LossTerm
from mmjax.objectives import losses, mixed_pictures


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Cross-entropy of the classes of an example, on pooled features.

  One class per example, or with `multi_label` any number of them: a yes or no
  for each, which may be a share (as in VQA v2, where it says how many people
  gave an answer; Teney et al. 2018, arXiv:1708.02711, 3.3).

  With `mixup` or `cutmix`, training sees each picture mixed with another of
  its (micro-)batch, and the target is mixed likewise. The encoder then runs
  for this objective alone: others want the pictures as they are.

  Raises:
    UserError: smoothing outside [0, 1), or of several labels; or mixing of
      what is not a picture alone.
  """

  num_classes: int
  modality: str = "image"
  given: tuple[str, ...] = ()  # Modalities that it is fused with first.
  view: str = "clean"  # "masked" shares the pass of masked prediction.
  label: str = "label"  # Field with the class index, or `multi_label` shares.
  multi_label: bool = False
  head: str = "label"
  head_kind: str = "linear"  # See `models.heads`.
  smoothing: float = 0.0  # Share of the target spread over all classes.
  # Shares are drawn from Beta(a, a) for each batch; 0 = off. With both, one of
  # them is drawn. See `mixed_pictures`.
  mixup: float = 0.0
  cutmix: float = 0.0

  def __post_init__(self):
    if not 0.0 <= self.smoothing < 1.0:
      raise errors.UserError(
        f"Classification.smoothing={self.smoothing}, expected [0, 1)."
      )
    if self.multi_label and self.smoothing:
      raise errors.UserError(
        "Classification.smoothing is for one label per example: with "
        "multi_label leave it 0."
      )
    for name in ("mixup", "cutmix"):
      if getattr(self, name) < 0:
        raise errors.UserError(
          f"Classification.{name}={getattr(self, name)}, expected 0 or more."
        )
    if self._mixes and (self.modality != "image" or self.given):
      seen = [self.modality, *self.given]
      raise errors.UserError(
        "Classification.mixup and cutmix mix pictures, not what is seen with "
        f"them: {seen} has to be ['image'] alone, or both be 0."
      )

  @property
  def _mixes(self) -> bool:
    return bool(self.mixup or self.cutmix)

  def __call__(self, apply, batch, *, rng, train: bool):
    labels = batch[self.label]
    mask = losses.counted(batch, (self.modality, self.label), labels)
    share = None
    if train and self._mixes:
      images, share = mixed_pictures.draw(
        rng, batch["image"], mask, mixup=self.mixup, cutmix=self.cutmix
      )
      apply = apply.replaced(image=images)
    given = [self.given] if self.given else []
    pooled = apply("pool", self.modality, *given, view=self.view)
    logits = apply("head", self.head, pooled)  # b v
    if self.multi_label:
      return _several(logits, _mixed(labels, share), mask)
    values = _cross_entropy(logits, labels, share)
    if train and self.smoothing:
      # Cross-entropy to the uniform distribution over the classes.
      uniform = -jnp.mean(
        jax.nn.log_softmax(logits.astype(jnp.float32)), axis=1
      )
      values = (1 - self.smoothing) * values + self.smoothing * uniform
    if share is not None:  # The class that there is more of.
      partner = mixed_pictures.partner(labels)
      labels = jnp.where(share >= 0.5, labels, partner)
    return losses.masked_sum(values, mask), {
      "accuracy": losses.accuracy(logits, labels, mask)
    }

  def fields(self, info):
    del info
    label = FieldSpec((), "int32", "", "class index")
    if self.multi_label:
      label = FieldSpec((self.num_classes,), "float32", "v", "1 = has it")
    fields = {**modality_fields(self.modality, *self.given), self.label: label}
    if self._mixes:  # Patches of other places don't mix.
      fields["image"] = dataclasses.replace(MODALITIES["image"], or_shapes=())
    return fields

  def heads(self, info):
    del info
    head = {"name": self.head_kind, "num_classes": self.num_classes}
    return {self.head: head}

  def chance(self, info, batch_size):
    """Ln C: every class is as likely; of each of several labels, ln 2."""
    del info, batch_size
    return math.log(2 if self.multi_label else self.num_classes)


def _mixed(labels, share):
  """Shares of the classes of two examples."""
  if share is None:
    return labels
  share = share[:, None]
  return share * labels + (1 - share) * mixed_pictures.partner(labels)


def _cross_entropy(logits, labels, share):
  """Of one label, or of two by their shares."""
  own = losses.cross_entropy(logits, labels)
  if share is None:
    return own
  other = losses.cross_entropy(logits, mixed_pictures.partner(labels))
  return share * own + (1 - share) * other


def _several(logits, labels, mask):
  """The mean over examples and classes; what is said to be there, and is."""
  mask = jnp.broadcast_to(mask[:, None], labels.shape)  # b v
  loss = losses.masked_sum(losses.binary_cross_entropy(logits, labels), mask)
  said, there = mask & (logits > 0), mask & (labels >= 0.5)
  both, said, there = (
    jnp.sum(x, dtype=jnp.float32) for x in (said & there, said, there)
  )
  return loss, {
    "precision": LossTerm(both, said),
    "recall": LossTerm(both, there),
  }
