"""One example <-> bytes with a checksum: what prepared shards hold.

  b"mmx1"  crc32 of the rest  length of the header  header (JSON)  blobs

The header has what JSON can say, and of each blob its field, its length and,
of an array, dtype and shape. Nothing in it is code.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmjax.data.files import media

MAGIC = b"mmx1"
PREFIX = struct.Struct("<4sII")


def pack(example: Mapping[str, Any]) -> bytes:
  """The bytes of an example of texts, numbers, lists, bytes and arrays.

  Raises:
    ValueError: a field holds something else.
  """
  values: dict[str, Any] = {}
  blobs: list[list[Any]] = []
  contents: list[bytes] = []
  for name, value in example.items():
    if isinstance(value, bytes):
      blobs.append([name, len(value)])
      contents.append(value)
    elif isinstance(value, np.ndarray):
      contents.append(np.ascontiguousarray(value).tobytes())
      blobs.append([name, len(contents[-1]), value.dtype.str, value.shape])
    else:
      values[name] = value.item() if isinstance(value, np.generic) else value
  try:
    header = json.dumps([values, blobs], ensure_ascii=False).encode()
  except TypeError as e:
    raise ValueError(f"a field that cannot be written: {e}") from e
  rest = b"".join([header, *contents])
  return PREFIX.pack(MAGIC, zlib.crc32(rest), len(header)) + rest


def unpack(record: bytes) -> dict[str, Any]:
  """The example of a record.

  Raises:
    ValueError: it is damaged, or no record of this kind.
  """
  if len(record) < PREFIX.size or not record.startswith(MAGIC):
    raise ValueError("not a record of a prepared data set")
  _, checksum, length = PREFIX.unpack_from(record)
  rest = memoryview(record)[PREFIX.size :]
  if zlib.crc32(rest) != checksum:
    raise ValueError("a damaged record: its checksum does not fit")
  values, blobs = json.loads(bytes(rest[:length]))
  example = {name: media.plain(value) for name, value in values.items()}
  start = length
  for name, size, *array in blobs:
    content = bytes(rest[start : start + size])
    start += size
    if array:
      content = np.frombuffer(content, array[0]).reshape(array[1])
    example[name] = content
  return example
