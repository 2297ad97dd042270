"""Joint cross-modal encoder: self-attention over all modalities at once."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.restore import Restore
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.projection import Projection
from mmjax.models.layers.transformer import Stack


class JointEncoder(nn.Module):
  """Concatenates sequences, adds their modality's embedding, mixes, splits.

  Source: the single-stream encoders of VisualBERT (Li et al. 2019) and FLAVA
  (Singh et al. 2022, 3.1). Tokens that an encoder dropped come back here as
  learned tokens at their positions, as in MAE's decoder.
  """

  size: variants.Size
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    if not sequences:
      raise errors.UserError("A fusion needs at least one modality.")
    names = sorted(sequences)  # The order of the call must not matter.
    inputs = {}
    for name in names:
      sequence = sequences[name]
      if sequence.x.shape[-1] != self.size.embed_dim:
        x = Projection(
          (self.size.embed_dim,),
          (axes.EMBED, axes.MLP),
          precision=self.precision,
          name=f"input_{name}",
        )(sequence.x)
        sequence = sequence.replace(x=x)
      if sequence.positions is not None:
        sequence = Restore(name=f"restore_{name}")(sequence)
      modality = self.param(
        f"modality_{name}",
        nn.with_logical_partitioning(
          nn.initializers.normal(0.02), (axes.EMBED,)
        ),
        (self.size.embed_dim,),
        jnp.float32,
      )
      x = sequence.x + jnp.expand_dims(modality, (0, 1)).astype(
        sequence.x.dtype
      )
      inputs[name] = sequence.replace(x=x)
    x = jnp.concatenate([inputs[n].x for n in names], axis=1)  # b (n1 n2 ..) d
    mask = jnp.concatenate([inputs[n].mask for n in names], axis=1)
    x = Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      precision=self.precision,
      name="stack",
    )(x, mask=mask[:, None, :], train=train)
    outputs, start = {}, 0
    for name in names:
      stop = start + inputs[name].x.shape[1]
      outputs[name] = inputs[name].replace(x=x[:, start:stop])
      start = stop
    return outputs


def joint(
  *,
  size: str | Mapping[str, Any] = "B",
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> JointEncoder:
  """A joint encoder.

  Args:
    size: see `variants.resolve`.
    stack: see `StackOptions`.
    precision: see `core.precision`.
  """
  return JointEncoder(variants.resolve(size), stack_options(stack), precision)
