"""Fusion through a few tokens that all modalities share."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.fusion.stream import Stream, unrolled
from mmjax.models.layers.options import VIT, StackOptions


class BottleneckEncoder(nn.Module):
  """One stack per modality; they exchange through `num_tokens` tokens.

  Source: Nagrani et al. 2021 (arXiv:2107.00135), eq. 8 and 9: each modality's
  layer runs over its own tokens and the bottleneck's, and the bottleneck goes
  on as the mean of what the layers made of it. The mean is over the
  modalities that an example has. A modality alone keeps the tokens, as
  registers.
  """

  size: variants.Size
  num_tokens: int = 4
  fusion_start: int = 0  # Index of the first layer that has the bottleneck.
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    outputs = fusion_inputs(
      self, sequences, self.size.embed_dim, self.precision
    )
    streams = {
      name: Stream(
        self.size.num_layers,
        self.size.num_heads,
        self.size.mlp_dim,
        self.options,
        precision=self.precision,
        name=f"stack_{name}",
      )
      for name in outputs
    }
    bottleneck = self._bottleneck(next(iter(outputs.values())).x)  # b t d
    for index in range(self.size.num_layers):
      made = []  # What each modality makes of the bottleneck.
      for name, sequence in outputs.items():
        x, mask = sequence.x, sequence.mask
        if index >= self.fusion_start:
          x = jnp.concatenate([x, bottleneck], axis=1)  # b (n t) d
          mask = jnp.pad(
            mask, ((0, 0), (0, self.num_tokens)), constant_values=True
          )
        x = streams[name](index, x, mask=mask, train=train)
        length = sequence.x.shape[1]
        made.append(x[:, length:])
        outputs[name] = sequence.replace(x=x[:, :length])
      if index >= self.fusion_start:
        bottleneck = _mean(made, [s.mask for s in outputs.values()])
    return outputs

  def _bottleneck(self, like):
    tokens = self.param(
      "bottleneck",
      nn.with_logical_partitioning(
        nn.initializers.normal(0.02), (None, None, axes.EMBED)
      ),
      (1, self.num_tokens, self.size.embed_dim),
      jnp.float32,
    )
    shape = (like.shape[0], *tokens.shape[1:])
    return jnp.broadcast_to(tokens.astype(like.dtype), shape)


def _mean(parts, masks):
  """The mean over the modalities of which an example has any token."""
  present = [jnp.any(m, axis=1)[:, None, None] for m in masks]  # b 1 1
  count = sum(p.astype(parts[0].dtype) for p in present)
  total = sum(
    jnp.where(p, part, 0.0) for p, part in zip(present, parts, strict=True)
  )
  return total / jnp.maximum(count, 1.0)


def bottleneck(
  *,
  size: str | Mapping[str, Any] = "B",
  num_tokens: int = 4,
  fusion_start: int = 0,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> BottleneckEncoder:
  """Stacks that exchange through a bottleneck.

  Args:
    size: of each modality's stack, see `variants.resolve`.
    num_tokens: of the bottleneck. Nagrani et al. 2021 use 4.
    fusion_start: layers before this one are each modality's own. Of the
      paper's 12 layers 8 are; here the encoders come before.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: no token, no layer that has them, or scanned layers.
  """
  size = variants.resolve(size)
  if num_tokens < 1:
    raise errors.UserError(f"num_tokens={num_tokens}, expected 1 or more.")
  if not 0 <= fusion_start < size.num_layers:
    raise errors.UserError(
      f"fusion_start={fusion_start}, expected 0 to {size.num_layers - 1}: one "
      f"of the {size.num_layers} layers."
    )
  return BottleneckEncoder(
    size, num_tokens, fusion_start, unrolled(stack), precision
  )
