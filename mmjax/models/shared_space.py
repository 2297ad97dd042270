"""The modality-invariant space: projections of unit length, a temperature."""

import math
from collections.abc import Mapping

import flax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers.norm import unit_length
from mmjax.models.layers.projection import Projection

MAX_LOGIT_SCALE = 100.0  # CLIP's clamp, Radford et al. 2021, 2.5.
PROJECTIONS = ("linear", "affine", "none")


class SharedSpace(nn.Module):
  """Projects pooled features of any modality to one unit sphere.

  `log_scale` is the natural logarithm of what cosine similarities are
  multiplied by (the inverse of the temperature). Its domain is
  [0, ln 100]; values outside are clamped in use, so the scale is 1..100;
  without `max_scale` they are not.
  With `init_bias` there is a `logit_bias`, which is added to the logits.

  Raises:
    UserError: a modality that this space has no projection for, an unknown
      kind of projection, or "none" of features that have another width.
  """

  dim: int
  modalities: tuple[str, ...]
  init_scale: float = 1 / 0.07  # Radford et al. 2021, 2.5.
  init_bias: float | None = None  # None: no bias.
  max_scale: float = MAX_LOGIT_SCALE  # 0: none, as in SigLIP.
  # By modality, where it is not "linear": "affine" (with a bias) or "none".
  kinds: Mapping[str, str] = flax.core.FrozenDict()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  def setup(self):
    for name, kind in self.kinds.items():
      if name not in self.modalities:
        raise errors.unknown("modality to project", name, self.modalities)
      if kind not in PROJECTIONS:
        raise errors.unknown("kind of projection", kind, PROJECTIONS)
    self.projections = {
      name: Projection(
        (self.dim,),
        (axes.EMBED, axes.SHARED),
        use_bias=self._kind(name) == "affine",
        precision=self.precision,
      )
      for name in self.modalities
      if self._kind(name) != "none"
    }
    self.log_scale = self.param(
      "log_scale",
      nn.initializers.constant(math.log(self.init_scale)),
      (),
      jnp.float32,
    )
    if self.init_bias is not None:
      self.logit_bias = self.param(
        "logit_bias",
        nn.initializers.constant(self.init_bias),
        (),
        jnp.float32,
      )

  def __call__(
    self, modality: str, pooled: Float[Array, "b d"]
  ) -> Float[Array, "b s"]:
    """Projects to the unit sphere, in float32."""
    if modality not in self.modalities:
      raise errors.unknown(
        "modality of the shared space", modality, self.modalities
      )
    if self._kind(modality) != "none":
      return unit_length(self.projections[modality](pooled))
    if pooled.shape[-1] != self.dim:
      raise errors.UserError(
        f"{modality!r} has {pooled.shape[-1]} channels and no projection to "
        f"the {self.dim} of the shared space: set model.shared_projections."
        f"{modality} to 'linear', or model.shared_dim to {pooled.shape[-1]}."
      )
    return unit_length(pooled)

  def scale(self) -> Float[Array, ""]:
    """What similarities are multiplied by."""
    if not self.max_scale:
      return jnp.exp(self.log_scale)
    return jnp.exp(jnp.clip(self.log_scale, 0.0, math.log(self.max_scale)))

  def temperature(self) -> dict[str, Float[Array, ""]]:
    """`scale`, and `bias` if there is one: from similarities to logits."""
    found = {"scale": self.scale()}
    if self.init_bias is not None:
      found["bias"] = self.logit_bias
    return found

  def _kind(self, modality):
    return self.kinds.get(modality, PROJECTIONS[0])
