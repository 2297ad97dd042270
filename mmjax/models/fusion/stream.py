"""The layers of one modality, called one at a time."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn
from jaxtyping import Array, Bool, Float

from mmjax.core import errors
from mmjax.core import precision as precision_lib
from mmjax.models.layers import norm as norm_lib
from mmjax.models.layers.options import StackOptions, stack_options
from mmjax.models.layers.transformer import block_class


class Stream(nn.Module):
  """A stack whose layers others look into, or are looked into by.

  Parameters are named as those of `Stack`, `layer_00`, ..., `norm`: so that an
  encoder's can be loaded (a rename rule moves them). A layer gets those of
  cross-attention if it is given a context when parameters are made.
  """

  num_layers: int
  num_heads: int
  mlp_dim: int
  options: StackOptions = StackOptions()
  self_attention: bool = True
  feed_forward: bool = True
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @nn.compact
  def __call__(
    self,
    index: int,
    x: Float[Array, "b n d"],
    *,
    mask: Bool[Array, "b n"],
    train: bool,
    context: Float[Array, "b m d"] | None = None,
    context_mask: Bool[Array, "b m"] | None = None,
  ) -> Float[Array, "b n d"]:
    """Runs one layer, and after the last the norm that a pre-norm stack has.

    Args:
      index: of the layer, from 0.
      x: the tokens.
      mask: True where a token counts.
      train: dropout and stochastic depth are on.
      context: the layer also attends to this.
      context_mask: True where the context counts.
    """
    options = self.options
    pre = options.norm_position == "pre"
    x = block_class(options)(
      num_heads=self.num_heads,
      mlp_dim=self.mlp_dim,
      options=options,
      drop_path_rate=options.drop_path_rate * index / max(1, self.last),
      self_attention=self.self_attention,
      feed_forward=self.feed_forward,
      context_norm=pre,
      precision=self.precision,
      name=f"layer_{index:02d}",
    )(
      x,
      mask[:, None, :],
      train,
      None,
      context,
      None if context_mask is None else context_mask[:, None, :],
    )
    if index < self.last or not pre:
      return x
    return norm_lib.norm(
      options.norm, self.precision, "norm", options.norm_epsilon
    )(x)

  @property
  def last(self) -> int:
    """Index of the last layer."""
    return self.num_layers - 1


def unrolled(section: StackOptions | Mapping[str, Any]) -> StackOptions:
  """Options of streams, from the section of a config.

  Raises:
    UserError: as `stack_options`, or the layers are to be scanned.
  """
  options = stack_options(section)
  if options.scan:
    raise errors.UserError(
      "This fusion calls the layers of its modalities in turn, which cannot "
      "be scanned: set stack.scan=False. stack.remat saves memory here too."
    )
  return options
