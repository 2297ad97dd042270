"""Light decoder over all positions, for encoders that drop what is hidden."""

from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from mmjax.core import axes
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.fusion.restore import Restore
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.projection import Projection
from mmjax.models.layers.transformer import Stack

# Half as wide as ViT-B, four blocks: Tong et al. 2022 (arXiv:2203.12602), 4.1.
LIGHT = dict(embed_dim=384, num_layers=4, num_heads=6, mlp_dim=1536)


class PatchDecoder(nn.Module):
  """Puts dropped tokens back and mixes all of them.

  The encoder sees what is visible alone, so nearly all of its work on hidden
  tokens is saved; only these few narrow layers run on every position. Heads
  read what they predict from the result. Source: He et al. 2022
  (arXiv:2111.06377), 3, "MAE decoder"; as the predictor of features it is that
  of I-JEPA (Assran et al. 2023, arXiv:2301.08243), 3.

  A sequence of which nothing was dropped is mixed as it is.
  """

  size: variants.Size
  grid: tuple[int, ...] = ()  # Of the content tokens; see `Restore`.
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32
  everywhere: bool = False  # See `Restore`.

  @nn.compact
  def __call__(self, sequence: Sequence, *, train: bool) -> Sequence:
    x = Projection(
      (self.size.embed_dim,),
      (axes.EMBED, axes.MLP),
      precision=self.precision,
      name="input",
    )(sequence.x)
    sequence = sequence.replace(x=x)
    if sequence.positions is not None:
      restore = Restore(self.grid, self.everywhere, name="restore")
      sequence = restore(sequence)
    stack = Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      precision=self.precision,
      name="stack",
    )
    mask = sequence.mask[:, None, :]
    return sequence.replace(x=stack(sequence.x, mask=mask, train=train))


def patches(
  *,
  size: str | Mapping[str, Any] = "",
  grid: tuple[int, ...] | None = None,
  everywhere: bool = False,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> PatchDecoder:
  """A decoder of patches, tubelets or pieces of a spectrogram.

  Args:
    size: see `variants.resolve`; "" = `LIGHT`.
    grid: of the tokens, as the data's mask counts them.
    everywhere: the embeddings of positions are added to all tokens, not to
      those alone that the encoder dropped.
    stack: see `StackOptions`.
    precision: see `core.precision`.
  """
  return PatchDecoder(
    variants.resolve(size or LIGHT),
    tuple(grid or ()),
    stack_options(stack),
    precision,
    everywhere,
  )
