"""What objectives share that predict hidden tokens of pictures, clips, sounds.

These have no corrupted copy in the batch: the encoder hides the positions in
`<field>_hidden`, by a learned token or by leaving them out.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from mmjax.core import errors
from mmjax.core.batch import Batch, FieldSpec, modality_fields
from mmjax.core.interfaces import Apply
from mmjax.core.sequence import Sequence
from mmjax.objectives import losses


def masked_sequence(
  apply: Apply, modality: str, given: tuple[str, ...]
) -> Sequence:
  """A modality with hidden tokens, all positions, given other modalities.

  Tokens that the encoder dropped are put back by the fusion, or, alone or if
  the fusion leaves them out, by the modality's decoder.
  """
  if given:
    modalities = tuple(sorted({modality, *given}))
    sequence = apply("fuse", modalities, view="masked")[modality]
  else:
    sequence = apply("encode", modality, view="masked")
  if sequence.positions is None:
    return sequence
  return apply("restore", modality, *([given] if given else []), view="masked")


def hidden_mask(batch: Batch, modality: str) -> Bool[Array, "b k"]:
  """True for hidden positions that are real, of examples that count."""
  hidden = batch[f"{modality}_hidden"]
  mask = losses.counted(batch, (modality,), hidden)[:, None]
  if hidden.ndim == 3:  # Of several pictures: those that are there.
    mask = jnp.broadcast_to(
      (mask & batch[f"{modality}_mask"])[:, :, None], hidden.shape
    )
    return mask.reshape(len(hidden), -1)  # b (m k)
  mask = jnp.broadcast_to(mask, hidden.shape)
  # Of recordings: some of what is hidden is padding.
  return mask & batch.get(f"{modality}_hidden_mask", True)


def positions(
  batch: Batch, modality: str, num_content: int
) -> Int[Array, "b k"]:
  """Of the hidden tokens among the `num_content` of an example.

  Of several pictures, the batch counts those of each from 0: b m k.
  """
  hidden = batch[f"{modality}_hidden"]
  if hidden.ndim == 2:
    return hidden
  b, m, _ = hidden.shape
  starts = jnp.arange(m) * (num_content // m)
  return (hidden + starts[None, :, None]).reshape(b, -1)  # b (m k)


def take(
  values: Shaped[Array, "b n q"], batch: Batch, modality: str
) -> Float[Array, "b k q"]:
  """The rows of hidden positions; 0 where they don't count.

  So that nothing of them, NaN neither, reaches a gradient.
  """
  hidden = batch[f"{modality}_hidden"]
  rows = jnp.take_along_axis(values, hidden[:, :, None], axis=1)
  mask = hidden_mask(batch, modality)[:, :, None]
  return jnp.where(mask, rows.astype(jnp.float32), 0.0)


def hidden_fields(modality: str, *given: str) -> dict[str, FieldSpec]:
  """The fields that such an objective reads."""
  return {
    **modality_fields(modality, *given),
    f"{modality}_hidden": FieldSpec((None,), "int32", "k", "positions"),
  }


def check_count(sequence: Sequence, count: int, what: str) -> None:
  """Checks that targets are of the encoder's tokens.

  Raises:
    UserError: there are more or fewer of them.
  """
  if sequence.num_content not in (0, count):  # 0: the encoder doesn't say.
    raise errors.UserError(
      f"{what} has {count} tokens, the encoder {sequence.num_content}: both "
      "have to cut their inputs alike. Set their patch_size (and "
      "tubelet_frames, stride) to the same."
    )
