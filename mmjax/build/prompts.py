"""Host batch -> what a decoder starts from: what is given, and its prompt."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from mmjax.core import errors
from mmjax.core.interfaces import Decoding
from mmjax.generate import decoding as decoding_lib
from mmjax.sharding.mesh import BATCH_AXES

PROMPT = "prompt"  # Field of a batch, see `core.interfaces.Decoding`.
# What a decoder may read of a modality besides the field itself.
COMPANIONS = (
  "_mask",
  "_present",
  "_coordinates",
  "_segments",
  "_positions",
)

Fields = dict[str, Any]


def given_fields(decoding: Decoding, batch: Mapping[str, Any]) -> Fields:
  """Fields of the modalities that the decoder looks at.

  Raises:
    UserError: the batch lacks one.
  """
  fields = {}
  for name in decoding.given:
    if name not in batch:
      raise errors.unknown("field of the batch", name, batch)
    known = (name, *(name + companion for companion in COMPANIONS))
    fields |= {key: batch[key] for key in known if key in batch}
  return fields


def prompt_fields(
  decoding: Decoding,
  batch: Mapping[str, Any],
  *,
  bos_id: int,
  context: int,
  needed: int,
) -> tuple[Fields, np.ndarray]:
  """Fields of the decoder's text, padded to a bucket, and their lengths.

  Args:
    decoding: names the text.
    batch: `prompt` and `prompt_<x>`, or neither: then the text begins.
    bos_id: what it begins with.
    context: tokens that the decoder reads at most.
    needed: of these, so many are left to be said.

  Raises:
    UserError: a prompt is too long.
  """
  fields = {k: v for k, v in batch.items() if k.startswith(PROMPT)}
  if PROMPT not in fields:
    num_rows = len(next(iter(batch.values())))
    fields = {PROMPT: np.full((num_rows, 1), bos_id, np.int32)}
  width = fields[PROMPT].shape[1]
  mask = fields.setdefault(
    f"{PROMPT}_mask", np.ones(fields[PROMPT].shape, bool)
  )
  lengths = mask.sum(axis=1, dtype=np.int32)
  longest = int(lengths.max())
  if longest + needed > context:
    raise errors.UserError(
      f"The prompt has {longest} tokens, begin included, of {context} that the "
      f"model reads; {needed} or more have to be left for what it says. Give a "
      "shorter prompt."
    )
  size = decoding_lib.bucket(longest, context)
  made = {}
  for name, value in fields.items():
    if value.ndim == 2 and value.shape[1] == width:  # b t
      value = value[:, :size]
      value = np.pad(value, ((0, 0), (0, size - value.shape[1])))
    made[decoding.text + name.removeprefix(PROMPT)] = value
  if decoding.mode == "prefix":
    made[f"{decoding.text}_prefix"] = lengths
  return made, lengths


def filled(fields: Mapping[str, np.ndarray], mesh: Mesh) -> Fields:
  """Repeats the last row until the rows divide over the mesh."""
  ways = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
  made = {}
  for name, value in fields.items():
    more = np.repeat(value[-1:], -len(value) % ways, axis=0)
    made[name] = np.concatenate([value, more])
  return made
