"""Learned queries make a few tokens of many, then a joint stack mixes them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.batch import modality_fields
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.fusion.joint import mix
from mmjax.models.fusion.stream import Stream
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.transformer import Stack


@struct.dataclass
class Resampled(Sequence):
  """A sequence of queries: `num_content` of them, without a prefix.

  They can be pooled and attended to. No token has a position in the input.
  """

  def take(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
    """Refuses.

    Raises:
      UserError: always.
    """
    raise errors.UserError(
      "Sequence.take on a resampled sequence, whose "
      f"{self.num_content} tokens have no positions. An objective that "
      "predicts at positions needs its modality left out of "
      "config.model.fusion.modalities, which names those to resample."
    )


class QueryReader(nn.Module):
  """Reads a sequence into a fixed number of learned queries.

  Source: the resampler of Flamingo (Alayrac et al. 2022, arXiv:2204.14198,
  A.1.1), whose queries attend to tokens and queries at once
  (`attend_queries`); with `self_attention` and without `attend_queries` the
  layers are those of Q-Former (Li et al. 2023, arXiv:2301.12597, 3.1).
  """

  num_queries: int
  num_layers: int
  num_heads: int
  mlp_dim: int
  attend_queries: bool = True
  self_attention: bool = False
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(self, sequence: Sequence, *, train: bool) -> Resampled:
    b, _, d = sequence.x.shape
    queries = self.param(
      "queries",
      nn.with_logical_partitioning(
        nn.initializers.normal(0.02), (None, None, axes.EMBED)
      ),
      (1, self.num_queries, d),
      jnp.float32,
    )
    shape = (b, self.num_queries, d)
    x = jnp.broadcast_to(queries.astype(sequence.x.dtype), shape)
    # Queries that had nothing to read do not count.
    counts = jnp.any(sequence.mask, axis=1, keepdims=True)  # b 1
    mask = jnp.broadcast_to(counts, shape[:2])
    stream = Stream(
      self.num_layers,
      self.num_heads,
      self.mlp_dim,
      self.options,
      self.self_attention,
      precision=self.precision,
      name="stack",
    )
    for index in range(self.num_layers):
      context, context_mask = sequence.x, sequence.mask
      if self.attend_queries:
        context = jnp.concatenate([context, x], axis=1)  # b (n q) d
        context_mask = jnp.concatenate([context_mask, mask], axis=1)
      x = stream(
        index,
        x,
        mask=mask,
        train=train,
        context=context,
        context_mask=context_mask,
      )
    return Resampled(x, mask, num_content=self.num_queries)


class ResamplingEncoder(nn.Module):
  """Resamples the sequences of some modalities, then mixes all tokens.

  The stack at the end is that of `joint`, over `num_queries` tokens for each
  modality that is resampled and all tokens of the others. For pooling,
  matching and captioning: objectives that predict at the positions of a
  modality need it left out of `modalities`.
  """

  size: variants.Size
  modalities: tuple[str, ...] = ()  # To resample; empty = all.
  num_queries: int = 32
  resampler_layers: int = 2
  attend_queries: bool = True
  self_attention: bool = False
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    inputs = fusion_inputs(self, sequences, self.size.embed_dim, self.precision)
    for name in self.modalities or tuple(inputs):
      if name in inputs:
        reader = QueryReader(
          self.num_queries,
          self.resampler_layers,
          self.size.num_heads,
          self.size.mlp_dim,
          self.attend_queries,
          self.self_attention,
          # So few layers that scanning them would save nothing.
          dataclasses.replace(self.options, scan=False),
          self.precision,
          name=f"resampler_{name}",
        )
        inputs[name] = reader(inputs[name], train=train)
    stack = Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      precision=self.precision,
      name="stack",
    )
    return mix(stack, inputs, train=train)


def resampler(
  *,
  size: str | Mapping[str, Any] = "B",
  modalities: tuple[str, ...] | list[str] = (),
  num_queries: int = 32,
  resampler_layers: int = 2,
  attend_queries: bool = True,
  self_attention: bool = False,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> ResamplingEncoder:
  """A joint encoder over resampled sequences.

  Args:
    size: of the joint stack, see `variants.resolve`; resamplers have its
      heads and widths.
    modalities: which to resample; empty = all. Leave out "text" to predict
      masked tokens.
    num_queries: tokens that are left of a modality. Flamingo has 64, Q-Former
      32.
    resampler_layers: layers before the joint stack.
    attend_queries: queries find themselves among what they attend to.
    self_attention: queries attend to each other first.
    stack: see `StackOptions`; the layers of resamplers are never scanned.
    precision: see `core.precision`.

  Raises:
    UserError: unknown modality, or a number less than 1.
  """
  modality_fields(*modalities)
  for name, value in (
    ("num_queries", num_queries),
    ("resampler_layers", resampler_layers),
  ):
    if value < 1:
      raise errors.UserError(f"{name}={value}, expected 1 or more.")
  return ResamplingEncoder(
    variants.resolve(size),
    tuple(modalities),
    num_queries,
    resampler_layers,
    attend_queries,
    self_attention,
    stack_options(stack),
    precision,
  )
