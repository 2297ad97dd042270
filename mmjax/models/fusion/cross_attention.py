"""Co-attention: each modality attends to all the others."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.fusion.stream import Stream, unrolled
from mmjax.models.layers.options import VIT, StackOptions


class CoAttentionEncoder(nn.Module):
  """X + softmax(Q K^T / sqrt(d_k)) V: Q of X, K and V of the other modalities.

  Source: the co-attention layers of ViLBERT (Lu et al. 2019, arXiv:1908.02265,
  3.1) and LXMERT (Tan & Bansal 2019, arXiv:1908.07490, 2.2), for any number of
  modalities: the others' tokens, after the layer before, stand one after the
  other. A layer attends to its own modality, then to the others, then comes
  the feed-forward, each with a residual; every modality has its own
  parameters. Where no other is there, in the batch or in an example,
  cross-attention is left out; and only if two modalities meet when parameters
  are made do they include it.
  """

  size: variants.Size
  options: StackOptions = StackOptions()
  self_attention: bool = True
  feed_forward: bool = True
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
        self.self_attention,
        self.feed_forward,
        self.precision,
        name=f"stack_{name}",
      )
      for name in outputs
    }
    for index in range(self.size.num_layers):
      outputs = {
        name: sequence.replace(
          x=streams[name](
            index,
            sequence.x,
            mask=sequence.mask,
            train=train,
            **_others(outputs, name),
          )
        )
        for name, sequence in outputs.items()
      }
    return outputs


def _others(sequences, name):
  """The context of one modality; empty if it is alone."""
  others = [s for other, s in sequences.items() if other != name]
  if not others:
    return {}
  return {
    "context": jnp.concatenate([s.x for s in others], axis=1),
    "context_mask": jnp.concatenate([s.mask for s in others], axis=1),
  }


def cross_attention(
  *,
  size: str | Mapping[str, Any] = "B",
  self_attention: bool = True,
  feed_forward: bool = True,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> CoAttentionEncoder:
  """Co-attention layers.

  Args:
    size: of each modality's layers, see `variants.resolve`.
    self_attention: layers attend to their own modality too.
    feed_forward: layers end in a feed-forward.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: scanned layers.
  """
  return CoAttentionEncoder(
    variants.resolve(size),
    unrolled(stack),
    self_attention,
    feed_forward,
    precision,
  )
