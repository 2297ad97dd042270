"""Which field of an example a file makes, by the ending of its name."""

import json
from collections.abc import Mapping
from typing import Any

# Ending of a file -> field of the example.
FIELDS = {
  **dict.fromkeys(
    ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff", "ppm"), "image"
  ),
  **dict.fromkeys(("wav", "flac", "mp3", "ogg", "oga", "opus"), "audio"),
  **dict.fromkeys(("mp4", "webm", "mkv", "mov", "avi"), "video"),
  **dict.fromkeys(("txt", "caption"), "text"),
  "cls": "label",
  "json": "",  # An object, whose keys are fields.
}
MEDIA = ("image", "audio", "video")


def split_name(path: str) -> tuple[str, str]:
  """What a file shares with its sidecars, and its ending in small letters.

  All from the first dot of the last part on is the ending, as in WebDataset:
  "a/b.seg.png" is "a/b" and "seg.png".
  """
  folder, slash, name = path.rpartition("/")
  stem, _, ending = name.partition(".")
  return f"{folder}{slash}{stem}", ending.lower()


def fields_of(ending: str, content: bytes) -> dict[str, Any]:
  """The fields that a file makes.

  One of an unknown ending makes none; one with a word before it ("seg.png") a
  field of that name with the encoded bytes or the text.

  Raises:
    ValueError: not what its ending says.
  """
  word, _, last = ending.rpartition(".")
  if last not in FIELDS:
    return {}
  field = FIELDS[last]
  if field in MEDIA:
    return {word or field: content}
  try:
    text = content.decode("utf-8").strip()
  except UnicodeDecodeError as e:
    raise ValueError(f"a .{last} file that is not UTF-8: {e}") from e
  if last == "json":
    return _object(text, last)
  if field == "label" and text.isdigit():
    return {word or field: int(text)}
  if field == "text":
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return {word or field: lines[0] if len(lines) == 1 else tuple(lines)}
  return {word or field: text}


def _object(text: str, ending: str) -> dict[str, Any]:
  try:
    value = json.loads(text)
  except ValueError as e:
    raise ValueError(f"a .{ending} file that is not JSON: {e}") from e
  if not isinstance(value, Mapping):
    raise ValueError(f"a .{ending} file without an object in it")
  return {name: plain(item) for name, item in value.items()}


def plain(value: Any) -> Any:
  """Lists as tuples, so that nobody changes what is shared."""
  if isinstance(value, list):
    return tuple(plain(item) for item in value)
  return value
