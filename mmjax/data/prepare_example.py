"""One example as prepared shards hold it, or why it is left out."""

import dataclasses
import hashlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from mmjax.core import errors
from mmjax.data import broken
from mmjax.data.files import media, records
from mmjax.data.sources import Source
from mmjax.data.transforms import audio, image, video

JPEG_QUALITY = 95
DUPLICATES = ("keep", "exact", "similar")
SCRIPTS = {  # Language of script -> ranges of its letters.
  "latin": ((0x41, 0x24F),),
  "cyrillic": ((0x400, 0x52F),),
  "han": ((0x3400, 0x9FFF),),
  "kana": ((0x3040, 0x30FF),),
  "hangul": ((0xAC00, 0xD7AF),),
  "arabic": ((0x600, 0x6FF),),
  "devanagari": ((0x900, 0x97F),),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
  """What is made of each example, and which are left out.

  Raises:
    UserError: a number outside its domain, or an unknown name.
  """

  image_size: int = 0  # Shorter side of pictures that are larger; 0 = as is.
  duplicates: str = "keep"  # Or "exact" or "similar" pictures are left out.
  min_text: int = 0  # Characters of the caption.
  max_text: int = 0  # 0 = any number.
  script: str = ""  # At least half of the letters are of it, see `SCRIPTS`.
  max_aspect: float = 0.0  # Longer by shorter side; 0 = any.
  text: str = "text"  # Field that these look at.

  def __post_init__(self):
    if self.duplicates not in DUPLICATES:
      raise errors.unknown(
        "treatment of duplicates", self.duplicates, DUPLICATES
      )
    if self.script and self.script not in SCRIPTS:
      raise errors.unknown("script", self.script, SCRIPTS)
    for name in ("image_size", "min_text", "max_text", "max_aspect"):
      if getattr(self, name) < 0:
        raise errors.UserError(f"{name}={getattr(self, name)}, expected >= 0.")


@dataclasses.dataclass(frozen=True)
class Made:
  """An example as it is written, or why it is not."""

  example: Mapping[str, Any] | None
  reason: str = ""
  where: str = ""
  exact: str = ""  # Hash of the picture's bytes, or of the whole example.
  similar: str = ""  # Difference hash of the picture.


def make(source: Source, index: int, options: PrepareOptions) -> Made:
  """Reads an example, checks that it decodes, and filters it."""
  where = f"[{index}]"
  try:
    example = dict(source[index])
    where = str(example.get("key", example.get("__key__", where)))
    picture = _check_media(example, options)
  except errors.UserError:
    raise
  except Exception as e:  # What is damaged raises nearly anything.
    reason = str(e) if isinstance(e, ValueError) else f"{type(e).__name__}: {e}"
    return Made(None, f"broken: {broken.kind(reason)}", where)
  if reason := _filtered(example, picture, options):
    return Made(None, reason, where)
  return Made(example, "", where, _hash(example), _difference_hash(picture))


def _check_media(example, options) -> np.ndarray | None:
  """Decodes what will be decoded in training; returns the picture."""
  picture = None
  if isinstance(example.get("image"), bytes):
    picture = image.decode(example["image"])
    if 0 < options.image_size < min(picture.shape[:2]):
      example["image"] = _smaller(example["image"], options.image_size)
  if isinstance(example.get("audio"), bytes):
    audio.decode(example["audio"])
  if isinstance(example.get("video"), bytes):
    video.decode(example["video"])
  return picture


def _smaller(encoded: bytes, size: int) -> bytes:
  """The same picture with a shorter side of `size`; JPEG, or PNG if it was."""
  pixels = Image.fromarray(image.decode(encoded))
  scale = size / min(pixels.size)
  shape = [max(size, round(side * scale)) for side in pixels.size]
  pixels = pixels.resize(shape, Image.Resampling.LANCZOS)
  file = io.BytesIO()
  if encoded.startswith(b"\x89PNG"):
    pixels.save(file, "PNG", optimize=True)
  else:
    pixels.save(file, "JPEG", quality=JPEG_QUALITY)
  return file.getvalue()


def _filtered(example, picture, options) -> str:
  """Why an example is left out; "" if it is not."""
  if picture is not None and options.max_aspect:
    high, low = max(picture.shape[:2]), min(picture.shape[:2])
    if high > options.max_aspect * low:
      return "filtered: aspect ratio"
  texts = example.get(options.text)
  if texts is None or not (
    options.min_text or options.max_text or options.script
  ):
    return ""
  first = texts if isinstance(texts, str) else texts[0]
  if len(first) < options.min_text:
    return "filtered: text too short"
  if options.max_text and len(first) > options.max_text:
    return "filtered: text too long"
  if options.script and not of_script(first, options.script):
    return f"filtered: not {options.script}"
  return ""


def of_script(text: str, script: str) -> bool:
  """Whether at least half of the letters of a text are of a script."""
  letters = [ord(c) for c in text if c.isalpha()]
  own = sum(
    any(low <= c <= high for low, high in SCRIPTS[script]) for c in letters
  )
  return bool(letters) and 2 * own >= len(letters)


def _hash(example: Mapping[str, Any]) -> str:
  digest = hashlib.blake2b(digest_size=16)
  found = [example[f] for f in media.MEDIA if isinstance(example.get(f), bytes)]
  for part in found or [records.pack(example)]:
    digest.update(part)
  return digest.hexdigest()


def _difference_hash(picture: np.ndarray | None) -> str:
  """64 bits: whether each of 8 x 8 places is darker than the one to its right.

  Pictures that were only scaled, or encoded again, have the same one or nearly;
  source: "dHash", Krawetz 2013.
  """
  if picture is None:
    return ""
  small = Image.fromarray(picture).convert("L")
  small = small.resize((9, 8), Image.Resampling.LANCZOS)
  values = np.asarray(small, np.int16)
  bits = np.packbits(values[:, :-1] < values[:, 1:])
  if values.max() - values.min() < 8:  # Nothing to tell it by.
    return ""
  return bits.tobytes().hex()
