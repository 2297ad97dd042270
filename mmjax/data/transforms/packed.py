"""Several texts to a row, each with its picture if it has one."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core.batch import FieldSpec
from mmjax.data.transforms import Transform
from mmjax.data.transforms.text import TextTransform

PACKED = "examples"  # Field of several examples that share a row.


@dataclass(frozen=True, kw_only=True)
class PackTransform:
  """Makes each example of a row by itself, then puts them into one.

  Texts stand one after the other: `text_segments` counts them from 1 (0 is
  padding), and `text_positions` starts anew with each. What is hidden was
  drawn for each text by itself. Their pictures are `images`, and
  `images_segments` says to which text each belongs.
  """

  transforms: tuple[Transform, ...]  # Of one example.
  slots: int = 0  # Hidden tokens of a row.
  max_images: int = 0  # Of a row; 0 = texts alone.

  @functools.cached_property
  def _text(self) -> TextTransform:
    return next(t for t in self.transforms if isinstance(t, TextTransform))

  @property
  def field(self) -> str:
    """Field of the source that holds the text."""
    return self._text.field or f"label_{self._text.caption.languages[0]}"

  @functools.cached_property
  def _single(self) -> dict[str, FieldSpec]:
    """The fields of one example."""
    return {k: v for t in self.transforms for k, v in t.specs().items()}

  def specs(self) -> dict[str, FieldSpec]:
    single = self._single
    text, mask = single["text"], single["text_mask"]
    specs = {
      "text": text,
      "text_mask": mask,
      "text_segments": FieldSpec(text.shape, "int32", "t", "1, 2, ..; 0 = pad"),
      "text_positions": FieldSpec(text.shape, "int32", "t", "in its text"),
    }
    if "text_hidden" in single:
      slots = (self.slots,)
      specs |= {
        "text_masked": single["text_masked"],
        "text_hidden": FieldSpec(slots, "int32", "k", "positions to predict"),
        "text_hidden_mask": FieldSpec(slots, "bool", "k", "True = in use"),
      }
    if self.max_images:
      m = self.max_images
      pixels = single["image"].shape
      specs |= {
        "images": FieldSpec((m, *pixels), "uint8", "m h w c", "pixels, RGB"),
        "images_mask": FieldSpec((m,), "bool", "m", "True = a picture"),
        "images_segments": FieldSpec((m,), "int32", "m", "of which text"),
      }
      if "image_hidden" in single:
        shape = (m, *single["image_hidden"].shape)
        doc = "indices of hidden patches of each picture"
        specs["images_hidden"] = FieldSpec(shape, "int32", "m k", doc)
    return specs

  def facts(self) -> dict[str, Any]:
    """What the encoders have to agree with."""
    made = [t.facts() for t in self.transforms if hasattr(t, "facts")]
    return {name: value for facts in made for name, value in facts.items()}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes the pictures."""
    if PACKED in example:
      return {**example, PACKED: tuple(map(self.prepare, example[PACKED]))}
    made = dict(example)
    for transform in self.transforms:
      if hasattr(transform, "prepare"):
        made = transform.prepare(made)
    return made

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    """Makes a row.

    Raises:
      ValueError: one of its examples is broken, or they don't fit into it.
    """
    parts = []
    for part in example.get(PACKED, (example,)):
      for transform in self.transforms:
        part = transform(part, rng, train=train)
      parts.append(part)
    made = {**example, **self._texts(parts)}
    return {**made, **self._images(parts)} if self.max_images else made

  def _texts(self, parts):
    fields = self._empty("text")
    fields["text"] += self._text.tokenizer.pad_id
    if "text_masked" in fields:
      fields["text_masked"] += self._text.tokenizer.pad_id
    start, slot = 0, 0
    for segment, part in enumerate(parts, 1):
      n = int(part["text_mask"].sum())
      here = slice(start, start + n)
      if start + n > len(fields["text"]):
        raise ValueError(f"{len(parts)} texts are too long for their row")
      for name in ("text", "text_mask", "text_masked"):
        if name in fields:
          fields[name][here] = part[name][:n]
      fields["text_segments"][here] = segment
      fields["text_positions"][here] = np.arange(n)
      if "text_hidden" in fields:
        hidden = part["text_hidden"][part["text_hidden_mask"]]
        if slot + len(hidden) > self.slots:
          raise ValueError(f"{len(parts)} texts hide more than {self.slots}")
        to = slice(slot, slot + len(hidden))
        fields["text_hidden"][to] = start + hidden
        fields["text_hidden_mask"][to] = True
        slot = to.stop
      start += n
    return fields

  def _images(self, parts):
    fields = self._empty("images")
    for i, part in enumerate(parts):
      fields["images"][i] = part["image"]
      fields["images_mask"][i] = True
      fields["images_segments"][i] = i + 1
      if "images_hidden" in fields:
        fields["images_hidden"][i] = part["image_hidden"]
    return fields

  def _empty(self, field):
    return {
      name: np.zeros(spec.shape, spec.dtype)
      for name, spec in self._specs.items()
      if name == field or name.startswith(f"{field}_")
    }

  @functools.cached_property
  def _specs(self) -> dict[str, FieldSpec]:
    return self.specs()
