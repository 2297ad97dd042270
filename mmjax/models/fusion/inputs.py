"""What every fusion does first with the sequences that it gets."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import linen as nn

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models.fusion.restore import Restore
from mmjax.models.layers.projection import Projection


def fusion_inputs(
  fusion: nn.Module,
  sequences: Mapping[str, Sequence],
  embed_dim: int,
  precision: precision_lib.Precision,
  restore: bool = True,
  project: bool = False,
  modality_embeddings: bool = True,
) -> dict[str, Sequence]:
  """Brings sequences to one width, whole, each with its modality's embedding.

  To be called within a compact method of `fusion`, which gets the parameters
  `input_<modality>`, where the width differs or with `project`,
  `restore_<modality>`, where an encoder drops tokens, and, unless there are to
  be no `modality_embeddings`, `modality_<modality>`. The result is sorted by
  name: the order of the call must not matter. Without `restore`, dropped
  tokens stay dropped.

  Raises:
    UserError: there is no sequence.
  """
  if not sequences:
    raise errors.UserError("A fusion needs at least one modality.")
  inputs = {}
  for name in sorted(sequences):
    sequence = sequences[name]
    if sequence.before_norm is not None:
      sequence = sequence.replace(x=sequence.before_norm, before_norm=None)
    if project or sequence.x.shape[-1] != embed_dim:
      x = Projection(
        (embed_dim,),
        (axes.EMBED, axes.MLP),
        precision=precision,
        name=f"input_{name}",
      )(sequence.x)
      sequence = sequence.replace(x=x)
    if restore and sequence.positions is not None:
      sequence = Restore(name=f"restore_{name}")(sequence)
    x = sequence.x.astype(precision.activations)
    if modality_embeddings:
      modality = fusion.param(
        f"modality_{name}",
        nn.with_logical_partitioning(
          nn.initializers.normal(0.02), (axes.EMBED,)
        ),
        (embed_dim,),
        jnp.float32,
      )
      x = x + jnp.expand_dims(modality, (0, 1)).astype(x.dtype)
    inputs[name] = sequence.replace(x=x)
  return inputs
