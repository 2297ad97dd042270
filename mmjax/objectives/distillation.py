"""Distillation from a frozen teacher."""

import dataclasses

import jax
import jax.numpy as jnp

from mmjax.core import errors
from mmjax.core.batch import modality_fields
from mmjax.objectives import hidden, losses

WHAT = ("tokens", "pooled", "logits")
LOSSES = ("cosine", "mse")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation:
  """Learns to see a modality as the model in `config.model.teacher` does.

  `what` is learned:
    tokens: the encoder's features of each token, through a linear head, by
      `loss` (FitNets, Romero et al. 2015, arXiv:1412.6550, 2.2). "mse" is to
      features that are normalised over channels.
    pooled: the pooled features likewise.
    logits: the logits of a head of the teacher on its pooled features, by
      T^2 KL(teacher || student) of both at `temperature` T (Hinton et al.
      2015, arXiv:1503.02531, 2). The head has the same name in both models;
      the student's may be that of a classification beside this one.

  Raises:
    UserError: an unknown kind or loss, no temperature, or no classes.
  """

  modality: str = "image"
  what: str = "tokens"  # See `WHAT`.
  loss: str = "cosine"  # Of features; or "mse".
  temperature: float = 1.0  # Of logits.
  num_classes: int | None = None  # Of logits; None = those of the data.
  head: str = ""  # "" = "distillation", of logits "label".

  needs_teacher = True
  needs_frozen = ("teacher",)

  def __post_init__(self):
    if self.what not in WHAT:
      raise errors.unknown("thing to distill", self.what, WHAT)
    if self.loss not in LOSSES:
      raise errors.unknown("loss of features", self.loss, LOSSES)
    if not self.temperature > 0:
      raise errors.UserError(
        f"temperature={self.temperature}, expected more than 0."
      )
    if self.what == "logits" and not self.num_classes:
      raise errors.UserError(
        "distillation of logits: the data have no labels, so num_classes has "
        "to be given: as many as the teacher's head has."
      )

  @property
  def head_name(self) -> str:
    """Of the head that is brought."""
    return self.head or ("label" if self.what == "logits" else "distillation")

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    if self.what == "logits":
      return self._logits(apply, batch)
    if self.what == "tokens":
      own = apply("encode", self.modality)
      seen = apply("encode", self.modality, by="teacher")
      hidden.check_count(own, seen.content.shape[1], "The teacher")
      made, target = own.content, seen.content  # b n d
      mask = own.content_mask & seen.content_mask
    else:
      made = apply("pool", self.modality)[:, None]  # b 1 d
      target = apply("pool", self.modality, by="teacher")[:, None]
      mask = jnp.ones(made.shape[:2], bool)
    mask = mask & losses.counted(batch, (self.modality,), mask)[:, None]
    target = jnp.where(mask[:, :, None], target.astype(jnp.float32), 0.0)
    predicted = apply("head", self.head_name, made)
    distance = losses.cosine_distance(predicted, target)
    values = distance
    if self.loss == "mse":
      target = losses.layer_normalized(target)
      values = losses.squared_error(predicted, target)
    metrics = {"cosine_distance": losses.masked_sum(distance, mask)}
    return losses.masked_sum(values, mask), metrics

  def _logits(self, apply, batch):
    own = apply("head", self.head_name, apply("pool", self.modality))
    pooled = apply("pool", self.modality, by="teacher")
    target = apply("head", self.head_name, pooled, by="teacher")  # b v
    mask = losses.counted(batch, (self.modality,), own)
    target = jnp.where(mask[:, None], target.astype(jnp.float32), 0.0)
    log_target = jax.nn.log_softmax(target / self.temperature)
    log_own = jax.nn.log_softmax(own.astype(jnp.float32) / self.temperature)
    values = jnp.sum(jnp.exp(log_target) * (log_target - log_own), axis=1)
    agrees = jnp.argmax(own, axis=1) == jnp.argmax(target, axis=1)
    return losses.masked_sum(self.temperature**2 * values, mask), {
      "agreement": losses.masked_sum(agrees.astype(jnp.float32), mask)
    }

  def fields(self, info):
    del info
    return modality_fields(self.modality)

  def heads(self, info):
    if info.teacher is None or self.modality not in info.teacher.widths:
      known = sorted(info.teacher.widths) if info.teacher else []
      raise errors.UserError(
        f"distillation: the teacher has no encoder of {self.modality!r}; it "
        f"has {known}. Set config.model.teacher to the workdir of a model that "
        "has one."
      )
    size = info.teacher.widths[self.modality]
    if self.what == "logits":
      size = self.num_classes
    return {self.head_name: {"name": "linear", "num_classes": size}}

  def teacher_heads(self, info):
    """Heads of the teacher that are asked."""
    del info
    if self.what != "logits":
      return {}
    return {self.head_name: {"name": "linear", "num_classes": self.num_classes}}

  def chance(self, info, batch_size):
    """1 of features, told nothing; that of logits depends on the teacher."""
    del info, batch_size
    return None if self.what == "logits" else 1.0
