"""Masked feature prediction: what a teacher sees where the student can't."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mmjax.core import errors
from mmjax.objectives import hidden, losses

LOSSES = ("mse", "smooth_l1")
TEACHERS = ("ema", "teacher")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedFeaturePrediction:
  """Predicts a teacher's features of the hidden tokens.

  The teacher encodes the whole input. It is the moving average of the model
  itself (`by="ema"`: data2vec, Baevski et al. 2022, arXiv:2202.03555, 3.3; with
  tokens dropped and a decoder as predictor I-JEPA, Assran et al. 2023,
  arXiv:2301.08243), or the frozen model in `config.model.teacher`
  (`by="teacher"`: EVA, Fang et al. 2022, arXiv:2211.07636).

  Targets are the encoder's last features, normalised over channels, as in
  I-JEPA; data2vec's mean of the top layers would need encoders that return
  them. The metric `target_variance` is the targets' variance over tokens,
  mean over channels: it falls to 0 if all inputs get the same features. With
  micro-batches it is the mean of theirs.

  Raises:
    UserError: an unknown loss or teacher, or a beta that is not positive.
  """

  modality: str = "image"  # Field to predict.
  given: tuple[str, ...] = ()  # Modalities that the student may look at.
  by: str = "ema"  # Or "teacher".
  loss: str = "mse"  # Or "smooth_l1".
  beta: float = 2.0  # Of "smooth_l1".
  head: str = "features"

  def __post_init__(self):
    if self.by not in TEACHERS:
      raise errors.unknown("teacher", self.by, TEACHERS)
    if self.loss not in LOSSES:
      raise errors.unknown("loss of features", self.loss, LOSSES)
    if not self.beta > 0:
      raise errors.UserError(f"beta={self.beta}, expected more than 0.")

  @property
  def needs_ema(self) -> bool:
    """Whether the optimizer has to keep a moving average."""
    return self.by == "ema"

  @property
  def needs_teacher(self) -> bool:
    """Whether the model has to have a teacher."""
    return self.by == "teacher"

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    positions = batch[f"{self.modality}_hidden"]
    sequence = hidden.masked_sequence(apply, self.modality, self.given)
    predicted = apply("head", self.head, sequence.take(positions))  # b k d
    target = apply("encode", self.modality, by=self.by).content  # b n d
    hidden.check_count(sequence, target.shape[1], "The teacher")
    mask = hidden.hidden_mask(batch, self.modality)
    target = hidden.take(target, batch, self.modality)  # b k d
    target = losses.layer_normalized(target)
    if self.loss == "mse":
      values = losses.squared_error(predicted, target)
    else:
      values = losses.smooth_l1(predicted, target, self.beta)
    spread = losses.constant(_variance(target, mask))
    return losses.masked_sum(values, mask), {"target_variance": spread}

  def fields(self, info):
    del info
    return hidden.hidden_fields(self.modality, *self.given)

  def heads(self, info):
    teacher = info.teacher if self.by == "teacher" else info
    width = teacher.widths.get(self.modality, 0) if teacher else 0
    if not width:
      raise errors.UserError(
        f"masked_feature_prediction: by={self.by!r} has no encoder of "
        f"{self.modality!r} to learn from; it has "
        f"{sorted(teacher.widths if teacher else ())}."
      )
    return {self.head: {"name": "linear", "num_classes": width}}

  def chance(self, info, batch_size):
    """The variance of normalised features."""
    del info, batch_size
    return 1.0 if self.loss == "mse" else None


def _variance(
  x: Float[Array, "b k d"], mask: Bool[Array, "b k"]
) -> Float[Array, ""]:
  """Over the tokens that count, mean over channels; 0 where none does."""
  weights = mask[:, :, None].astype(jnp.float32)
  count = jnp.maximum(jnp.sum(weights), 1.0)
  mean = jnp.sum(weights * x, axis=(0, 1), keepdims=True) / count
  return jnp.mean(jnp.sum(weights * jnp.square(x - mean), axis=(0, 1)) / count)
