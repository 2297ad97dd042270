"""Joint cross-modal encoder: self-attention over all modalities at once."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import CLS, Sequence, same
from mmjax.models import variants
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.transformer import Stack


class JointEncoder(nn.Module):
  """Concatenates sequences, adds their modality's embedding, mixes, splits.

  Source: the single-stream encoders of VisualBERT (Li et al. 2019) and FLAVA
  (Singh et al. 2022, 3.1). Tokens that an encoder dropped come back here as
  learned tokens at their positions, as in MAE's decoder. With `multiway`, each
  modality has a feed-forward of its own in all but the top `fused_layers`
  layers (BEiT-3, Wang et al. 2022, arXiv:2208.10442, 2.1); attention and norms
  are shared. With `cls`, the result has the class token too, under "cls".
  """

  size: variants.Size
  options: StackOptions = StackOptions()
  multiway: bool = False
  fused_layers: int = 0  # Of `multiway`.
  # False: dropped tokens are left out here too, and only the decoder of their
  # modality brings them back.
  restore: bool = True
  project: bool = False  # Of inputs of the same width too.
  modality_embeddings: bool = True
  cls: bool = False  # A learned token of its own is mixed with the others.
  precision: precision_lib.Precision = precision_lib.FLOAT32

  keeps_packed = True  # Examples that share a row don't see each other.

  @nn.compact
  def __call__(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    inputs = fusion_inputs(
      self,
      sequences,
      self.size.embed_dim,
      self.precision,
      self.restore,
      self.project,
      self.modality_embeddings,
    )
    if self.cls:
      inputs = {CLS: self._class_token(inputs), **inputs}
    lengths = tuple((name, s.x.shape[1]) for name, s in inputs.items())
    stack = Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      experts=lengths if self.multiway else (),
      fused_layers=self.fused_layers,
      precision=self.precision,
      name="stack",
    )
    return mix(stack, inputs, train=train)

  def _class_token(self, inputs):
    """A token that counts where any other does."""
    token = self.param(
      "cls",
      nn.with_logical_partitioning(
        nn.initializers.normal(0.02), (None, None, axes.EMBED)
      ),
      (1, 1, self.size.embed_dim),
      jnp.float32,
    )
    masks = jnp.concatenate([s.mask for s in inputs.values()], axis=1)
    x = jnp.broadcast_to(token, (len(masks), 1, self.size.embed_dim))
    counts = jnp.any(masks, axis=1, keepdims=True)
    return Sequence(x.astype(self.precision.activations), counts, num_content=1)


def mix(
  stack: Stack, sequences: Mapping[str, Sequence], *, train: bool
) -> dict[str, Sequence]:
  """Runs a stack over the tokens of all sequences, one after the other."""
  parts = sequences.values()
  x = jnp.concatenate([s.x for s in parts], axis=1)  # b (n1 n2 ..) d
  mask = jnp.concatenate([s.mask for s in parts], axis=1)
  mask = mask[:, None, :]  # b 1 n
  packed = [s.packed for s in parts if s.packed is not None]
  if packed:
    if len(packed) < len(parts):
      raise errors.UserError(
        "Rows hold several examples, but not in all modalities: of "
        f"{[n for n, s in sequences.items() if s.packed is None]} nothing says "
        "to which example a token belongs. Leave data.text.pack out."
      )
    mask = mask & same(jnp.concatenate(packed, axis=1))  # b n n
  x = stack(x, mask=mask, train=train)
  outputs, start = {}, 0
  for name, sequence in sequences.items():
    stop = start + sequence.x.shape[1]
    outputs[name] = sequence.replace(x=x[:, start:stop])
    start = stop
  return outputs


def joint(
  *,
  size: str | Mapping[str, Any] = "B",
  multiway: bool = False,
  fused_layers: int = 0,
  restore: bool = True,
  project: bool = False,
  modality_embeddings: bool = True,
  cls: bool = False,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> JointEncoder:
  """A joint encoder.

  Args:
    size: see `variants.resolve`.
    multiway: each modality has feed-forwards of its own.
    fused_layers: so many layers at the top share one after all; BEiT-3 has 3.
    restore: tokens that encoders drop come back here. False saves their work:
      what predicts them needs a decoder of the modality, e.g. 'predictor'.
    project: inputs pass a projection even if they have the fusion's width.
    modality_embeddings: tokens get a learned vector of their modality.
    cls: a learned token joins, as in FLAVA; matching then looks at it alone.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: more fused layers than layers, or some without `multiway`.
  """
  size = variants.resolve(size)
  if not 0 <= fused_layers <= size.num_layers:
    raise errors.UserError(
      f"fused_layers={fused_layers}, expected 0 to num_layers="
      f"{size.num_layers}."
    )
  if fused_layers and not multiway:
    raise errors.UserError(
      f"fused_layers={fused_layers} without multiway: all layers share their "
      "feed-forward anyway. Set multiway=True or fused_layers=0."
    )
  return JointEncoder(
    size,
    stack_options(stack),
    multiway,
    fused_layers,
    restore,
    project,
    modality_embeddings,
    cls,
    precision,
  )
