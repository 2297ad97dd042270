"""What a batch is, and the check at the border between data and model.

A batch is a dict of arrays whose leading axis is the example. Fields:

  field               dtype     axes          what
  image               uint8     b h w c       pixels 0..255, RGB
                      uint8     b n q         or a bag of patches, flattened
  images              uint8     b m h w c     several pictures of one example
  video               uint8     b f h w c     frames of pixels
  audio               float32   b t           waveform, mono, -1..1
  text                int32     b t           token ids, padded with `pad`
  label               int32     b             class index
                      float32   b v           or a share of each class
  answer              int32     b t           token ids of a second text
  <field>_mask        bool      b ...         True = real, False = padding
  <field>_hidden      int32     b k           tokens to predict, by position
  <field>_hidden_mask bool      b k           True = a real hidden position
  <field>_masked      as field  as field      corrupted copy, for view "masked"
  <field>_present     bool      b             False = example lacks the field
  <field>_coordinates int32     b n c         (row, column) of each patch
  <field>_codes       int32     b n           codes of its tokens, from a cache
  <field>_segments    int32     b t           which part a token belongs to
                      int32     b m           to which text a picture belongs
  <field>_positions   int32     b t           where in that part it stands
  <field>_places      int32     b t           which token of the pictures
                                              stands there; -1 = a word
  <field>_answer      bool      b t           True = to be said, not read
  <field>_prefix      int32     b             so many first tokens are given
  <field>_parallel    bool      b             True = predicted all at once
  example_mask        bool      b             False = filler of a last batch
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors

Batch = Mapping[str, Any]


@dataclass(frozen=True)
class FieldSpec:
  """Declares one field of a batch.

  `shape` leaves out the example axis; None stands for any size.
  """

  shape: tuple[int | None, ...]
  dtype: str  # A numpy dtype name, e.g. "uint8".
  axes: str = ""  # The axes' letters, e.g. "h w c".
  doc: str = ""
  # Other shapes that do as well, of one kind of data in another form.
  or_shapes: tuple[tuple[int | None, ...], ...] = ()

  def matches(self, array: Any) -> bool:
    shape = tuple(array.shape[1:])
    return np.dtype(array.dtype) == np.dtype(self.dtype) and any(
      len(shape) == len(known)
      and all(e is None or e == g for e, g in zip(known, shape, strict=True))
      for known in (self.shape, *self.or_shapes)
    )

  def __str__(self):
    shape = ["b"] + ["?" if s is None else str(s) for s in self.shape]
    return f"{self.dtype}[{', '.join(shape)}]"


# What each modality's field looks like when a model reads it.
MODALITIES = {
  "audio": FieldSpec((None,), "float32", "t", "waveform, mono, -1..1"),
  "image": FieldSpec(
    (None, None, 3),
    "uint8",
    "h w c",
    "pixels, RGB, or a bag of patches",
    or_shapes=((None, None),),
  ),
  "images": FieldSpec(
    (None, None, None, 3), "uint8", "m h w c", "several pictures, RGB"
  ),
  "text": FieldSpec((None,), "int32", "t", "token ids"),
  "video": FieldSpec(
    (None, None, None, 3), "uint8", "f h w c", "frames of pixels, RGB"
  ),
}
# Fields of several of a kind, each encoded by the encoder of one.
SEVERAL = {"images": "image"}


def modality_fields(*modalities: str) -> dict[str, FieldSpec]:
  """The fields of modalities.

  Raises:
    UserError: unknown modality.
  """
  for name in modalities:
    if name not in MODALITIES:
      raise errors.unknown("modality", name, MODALITIES)
  return {name: MODALITIES[name] for name in modalities}


def describe(array: Any) -> str:
  """Formats an array as `uint8[8, 64, 64, 3]`."""
  return f"{np.dtype(array.dtype)}[{', '.join(map(str, array.shape))}]"


def check_batch(
  batch: Batch, specs: Mapping[str, FieldSpec], *, batch_size: int | None = None
) -> None:
  """Checks a batch against what the model and the objectives declare.

  Raises:
    UserError: a field is missing, or has another shape, dtype or number of
      examples. Names the field, what was expected and what was got.
  """
  problems = []
  sizes = {
    name: array.shape[0]
    for name, array in batch.items()
    if getattr(array, "ndim", 0)
  }
  expected_size = batch_size
  if expected_size is None and sizes:
    expected_size = next(iter(sizes.values()))
  for name, spec in specs.items():
    if name not in batch:
      near = errors.nearest(name, batch)
      problems.append(f"  {name}: expected {spec}, got nothing.{near}")
    elif not spec.matches(batch[name]):
      problems.append(f"  {name}: expected {spec}, got {describe(batch[name])}")
  for name, size in sizes.items():
    if size != expected_size:
      problems.append(
        f"  {name}: expected {expected_size} examples, got {size}"
      )
  if problems:
    raise errors.UserError(
      "The data does not fit the model:\n"
      + "\n".join(problems)
      + f"\nThe batch has the fields {sorted(batch)}."
    )
