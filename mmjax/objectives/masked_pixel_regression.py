"""Masked pixel regression (masked autoencoding)."""

import dataclasses

import jax.numpy as jnp

from mmjax.core import errors
from mmjax.objectives import hidden, losses

FLAT = 1e-4  # Least variance of a patch of pixels 0..255 with any contrast.


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPixelRegression:
  """Predicts the pixels of hidden patches, alone or given other modalities.

  loss = mean over the patch's numbers of (predicted - target)^2. With
  `normalize`, a patch has mean 0 and variance 1 over its numbers; one of a
  single colour has no such target and does not count. Without, pixels are
  -1..1. Of a clip, its tubelets; of a recording, the patches of its log-mel
  spectrogram.

  Source: He et al. 2022 (arXiv:2111.06377), 3, "reconstruction target"; on
  clips Tong et al. 2022 (arXiv:2203.12602), on spectrograms Huang et al. 2022
  (arXiv:2207.06405).
  """

  modality: str = "image"  # Field to predict.
  given: tuple[str, ...] = ()  # Modalities it may look at.
  head: str = "pixels"
  normalize: bool = True

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    positions = batch[f"{self.modality}_hidden"]
    sequence = hidden.masked_sequence(apply, self.modality, self.given)
    predicted = apply("head", self.head, sequence.take(positions))  # b k q
    patches = apply("patches", self.modality)  # b n q
    hidden.check_count(sequence, patches.shape[1], "What is cut")
    mask = hidden.hidden_mask(batch, self.modality)
    target = hidden.take(patches, batch, self.modality)  # b k q
    if self.normalize:
      variance = jnp.var(target, axis=-1)
      mask = mask & (variance > FLAT)
      target = losses.layer_normalized(target, epsilon=1e-12)
    elif patches.dtype == jnp.uint8:
      target = target / 127.5 - 1.0
    return losses.masked_sum(losses.squared_error(predicted, target), mask), {}

  def fields(self, info):
    del info
    return hidden.hidden_fields(self.modality, *self.given)

  def heads(self, info):
    size = info.patch_dims.get(self.modality, 0)
    if not size:
      raise errors.UserError(
        f"masked_pixel_regression: the model has no encoder that cuts "
        f"{self.modality!r} into patches. Those that do: "
        f"{sorted(k for k, v in info.patch_dims.items() if v)}."
      )
    return {self.head: {"name": "linear", "num_classes": size}}

  def chance(self, info, batch_size):
    """The variance of a normalised patch."""
    del info, batch_size
    return 1.0 if self.normalize else None
