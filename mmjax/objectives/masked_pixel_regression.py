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
  spectrogram. The code of He et al. takes `unbiased` variances of pixels whose
  channels have mean 0, with an `epsilon` of 1e-6.

  Source: He et al. 2022 (arXiv:2111.06377), 3, "reconstruction target"; on
  clips Tong et al. 2022 (arXiv:2203.12602), on spectrograms Huang et al. 2022
  (arXiv:2207.06405).
  """

  modality: str = "image"  # Field to predict.
  given: tuple[str, ...] = ()  # Modalities it may look at.
  head: str = "pixels"
  normalize: bool = True
  # Mean and standard deviation of the pictures' channels, of pixels in 0..1,
  # that the target is normalised by first; empty = as said above.
  pixel_mean: tuple[float, ...] = ()
  pixel_std: tuple[float, ...] = ()
  unbiased: bool = False  # Variances are sums over one number less.
  # Added to variances; patches of a single colour count then, as 0.
  epsilon: float = 0.0

  def __post_init__(self):
    if len(self.pixel_mean) != len(self.pixel_std):
      raise errors.UserError(
        f"masked_pixel_regression: pixel_mean={self.pixel_mean}, but pixel_std="
        f"{self.pixel_std}; each channel has one of both."
      )

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    positions = batch[f"{self.modality}_hidden"]
    sequence = hidden.masked_sequence(apply, self.modality, self.given)
    predicted = apply("head", self.head, sequence.take(positions))  # b k q
    patches = apply("patches", self.modality)  # b n q
    hidden.check_count(sequence, patches.shape[1], "What is cut")
    mask = hidden.hidden_mask(batch, self.modality)
    target = hidden.take(patches, batch, self.modality)  # b k q
    if self.pixel_mean:
      target = self._standardized(target)
    if self.normalize and not self.epsilon:
      variance = jnp.var(target, axis=-1)
      mask = mask & (variance > (FLAT / 255**2 if self.pixel_mean else FLAT))
    if self.normalize:
      target = self._normalized(target)
    elif patches.dtype == jnp.uint8 and not self.pixel_mean:
      target = target / 127.5 - 1.0
    return losses.masked_sum(losses.squared_error(predicted, target), mask), {}

  def _standardized(self, target):
    """Pixels by the statistics of their channels, which run fastest."""
    times = target.shape[-1] // len(self.pixel_mean)
    mean = jnp.tile(jnp.asarray(self.pixel_mean), times)[None, None]  # 1 1 q
    std = jnp.tile(jnp.asarray(self.pixel_std), times)[None, None]
    return (target / 255.0 - mean) / std

  def _normalized(self, target):
    """Mean 0 and variance 1 over a patch."""
    size = target.shape[-1]
    share = size / (size - 1) if self.unbiased else 1.0
    epsilon = self.epsilon or 1e-12
    target = losses.layer_normalized(target, epsilon=epsilon / share)
    return target * share**-0.5 if self.unbiased else target

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
