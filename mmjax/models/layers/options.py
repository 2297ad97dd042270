"""What the blocks of a stack may look like."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from mmjax.core import errors, registry
from mmjax.models.layers.mlp import ACTIVATIONS
from mmjax.models.layers.norm import KINDS as NORMS

NORM_POSITIONS = ("pre", "post")
ATTENTIONS = ("xla", "cudnn")
RELATIVE = ("none", "layer", "shared")
# What the backward pass keeps of a block instead of computing it again.
REMAT_POLICIES = {
  "none": None,  # Everything is kept.
  "full": jax.checkpoint_policies.nothing_saveable,
  "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
  # The first of these that fits, see `build.remat`; "none" where none trains.
  "auto": None,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackOptions:
  """The `stack` section of an encoder, a fusion or a decoder.

  The defaults are those of ViT (Dosovitskiy et al. 2021).

  Raises:
    UserError: an unknown name, or a number outside its domain.
  """

  activation: str = "gelu_tanh"  # See `layers.mlp`.
  # A second projection multiplies the activated one: with "silu" this is
  # SwiGLU (Shazeer 2020, arXiv:2002.05202).
  gated: bool = False
  norm: str = "layer_norm"  # Or "rms_norm".
  norm_epsilon: float = 1e-6
  # "pre": x + f(norm(x)), and a norm after the last block; "post", as in BERT:
  # norm(x + f(x)).
  norm_position: str = "pre"
  final_norm: bool = True  # Whether that norm comes after the last block.
  use_bias: bool = True  # In the projections of attention and feed-forward.
  # Attention logits get a bias for each distance of patches and each head: of
  # each layer's own ("layer"), or the same in all ("shared"). Source: BEiT (Bao
  # et al. 2022, arXiv:2106.08254), released code. Of the encoder "vit".
  relative_positions: str = "none"
  # Of keys: it adds the same to all logits of a query, so changes nothing
  # unless keys are turned (rotary positions) or normalised (`qk_norm`) after
  # it. BEiT and Whisper have none.
  key_bias: bool = True
  # Norms of queries and keys, per head (Dehghani et al. 2023, 2.1), which
  # keeps attention logits from growing.
  qk_norm: bool = False
  # Branches start scaled by this, per channel, learned; 0 = no such scale
  # (Touvron et al. 2021, arXiv:2103.17239, eq. 5).
  layer_scale: float = 0.0
  dropout_rate: float = 0.0  # Of the residual branches.
  # Stochastic depth of the last block; grows linearly from 0.
  drop_path_rate: float = 0.0
  # Unrolled layers (`layer_00`, ...) run faster and can be frozen one by one;
  # scanned ones (`layers`, stacked parameters) compile faster and, with remat,
  # need a fraction of the memory.
  scan: bool = False
  remat: str = "none"
  # "cudnn": one kernel (`layers.flash`) on NVIDIA's GPUs, where activations are
  # bfloat16 and tokens see each other but for padding; elsewhere as "xla".
  attention: str = "xla"

  def __post_init__(self):
    for kind, value, known in (
      ("activation", self.activation, ACTIVATIONS),
      ("norm", self.norm, NORMS),
      ("norm position", self.norm_position, NORM_POSITIONS),
      ("relative positions", self.relative_positions, RELATIVE),
      ("remat policy", self.remat, REMAT_POLICIES),
      ("attention", self.attention, ATTENTIONS),
    ):
      if value not in known:
        raise errors.unknown(kind, value, known)
    for name in ("dropout_rate", "drop_path_rate"):
      if not 0 <= getattr(self, name) < 1:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected [0, 1)."
        )
    if self.layer_scale < 0 or self.norm_epsilon <= 0:
      raise errors.UserError(
        f"layer_scale={self.layer_scale}, expected 0 or more; norm_epsilon="
        f"{self.norm_epsilon}, expected more than 0."
      )
    if self.norm_position == "post" and not self.final_norm:
      raise errors.UserError(
        "final_norm=False: blocks with norm_position='post' end in a norm of "
        "their own. Leave it True, or take norm_position='pre'."
      )
    if self.scan and self.drop_path_rate:
      raise errors.UserError(
        "drop_path_rate grows with depth and scanned layers are all alike: "
        "set scan=False or drop_path_rate=0."
      )


VIT = StackOptions()


def stack_options(section: StackOptions | Mapping[str, Any]) -> StackOptions:
  """Options from the section of a config.

  Raises:
    UserError: an unknown key or a wrong value.
  """
  if isinstance(section, StackOptions):
    return section
  return registry.construct("stack", StackOptions, dict(section))
