"""`data.text.pack`: a source and its transforms -> rows of several examples."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmjax.core import errors
from mmjax.data import packing
from mmjax.data.sources import Source
from mmjax.data.transforms import Transform
from mmjax.data.transforms.packed import PACKED, PackTransform
from mmjax.data.transforms.text import SEPARATOR, MaskText, TextTransform

# Sections whose fields are of one example; with those of `text` and `image`.
SINGLE = ("question", "answer", "video", "audio", "label", "conversation")
SINGLE_ALSO = ("extra", "optional", "codes", "buckets")
SINGLE_TEXT = ("prefix", "parallel")
SINGLE_IMAGE = ("second", "patches")


def make_rows(
  sections: Mapping[str, Any], source: Source, transforms: Sequence[Transform]
) -> tuple[Source, PackTransform]:
  """Packs texts, each with its picture if there is `data.image`.

  Reads the texts of the whole source: no text is longer than what was counted
  on, whatever is drawn later.

  Args:
    sections: of the `data` group, by name.
    source: of single examples.
    transforms: of single examples.

  Raises:
    UserError: a section that says something of single examples, or pictures
      without their number.
  """
  max_images = check(sections)
  (text,) = (t for t in transforms if isinstance(t, TextTransform))
  mask = next((t for t in transforms if isinstance(t, MaskText)), None)

  def measure(example: Mapping[str, Any]) -> tuple[int, ...]:
    tokens, hidden = text.most_tokens(example), 0
    if mask:
      texts = map(SEPARATOR.join, text.longest(example))
      hidden = mask.most_hidden(tokens, texts)
    return tokens, hidden, 1

  room = (text.max_tokens, math.inf, max_images or math.inf)
  packed = packing.Packed(source, measure, room, PACKED)
  return packed, PackTransform(
    transforms=tuple(transforms),
    slots=packed.fullest(1),
    max_images=max_images,
  )


def check(sections: Mapping[str, Any]) -> int:
  """Checks what rows can hold; the number of pictures of a row.

  Raises:
    UserError: see `make_rows`.
  """
  text, image = sections["text"], sections.get("image") or {}
  paths = [
    *(name for name in (*SINGLE, *SINGLE_ALSO) if sections.get(name)),
    *(f"text.{name}" for name in SINGLE_TEXT if text.get(name)),
    *(f"image.{name}" for name in SINGLE_IMAGE if image.get(name)),
  ]
  if paths:
    raise errors.UserError(
      f"config.data.text.pack=True puts several texts into a row, but "
      f"config.data.{paths[0]} is of one example. Leave one of both out."
    )
  most = image.get("max_images", 0)
  if image and most < 1:
    raise errors.UserError(
      f"config.data.image.max_images={most}: a row of several texts has their "
      "pictures too, say how many at most, e.g. 8."
    )
  return most


def check_single(image: Mapping[str, Any]) -> None:
  """Checks that nothing is said of rows where examples stand alone.

  Raises:
    UserError: `max_images` without pack.
  """
  if image.get("max_images"):
    raise errors.UserError(
      f"config.data.image.max_images={image['max_images']} is of rows of "
      "several texts: set config.data.text.pack=True, or leave it out."
    )
