"""Files of named arrays, read and written one array at a time.

The two formats that hold nothing but numbers: safetensors (a length, a JSON
header, the bytes; huggingface.co/docs/safetensors) and npz. Nothing is ever
unpickled. All that a file says of itself is checked against its size first, so
that a wrong number allocates nothing.
"""

import dataclasses
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from mmjax.core import errors

# As safetensors call them. The floats become parameters; the others are here
# since files have buffers of them, which families leave out by name.
DTYPES: dict[str, Any] = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U8": np.uint8,
  "BOOL": np.bool_,
}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
MOST_HEADER = 100 * 2**20  # Bytes; the limit of the safetensors library.
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
TO_SAFETENSORS = (
  'python -c "import sys, torch, safetensors.torch as s; s.save_file({k: '
  "v.contiguous().clone() for k, v in torch.load(sys.argv[1], "
  'weights_only=True).items()}, sys.argv[2])" OLD model.safetensors'
)


@dataclasses.dataclass(frozen=True)
class Spec:
  """What is known of an array before it is read."""

  shape: tuple[int, ...]
  dtype: str  # A key of `DTYPES`.

  @property
  def num_bytes(self) -> int:
    return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize


@runtime_checkable
class Tensors(Protocol):
  """Named arrays that lie in files."""

  specs: Mapping[str, Spec]

  def read(self, name: str) -> np.ndarray:
    """One of them, in memory of its own."""


class Safetensors:
  """A safetensors file.

  Raises:
    UserError: it is no such file, was cut off, or contradicts itself.
  """

  def __init__(self, path: Path):
    self._path = path
    size = _size(path)
    with path.open("rb") as file:
      first = file.read(8)
      length = struct.unpack("<Q", first)[0] if len(first) == 8 else 0
      if not 2 <= length <= min(size - 8, MOST_HEADER):
        raise self._broken(
          f"the header claims {length:,} bytes, the file has {size:,}"
        )
      try:
        header = json.loads(file.read(length).decode("utf-8"))
        header.pop("__metadata__", None)
        entries = {name: _entry(value) for name, value in header.items()}
      except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise self._broken(f"the header is no list of tensors ({e})") from e
    self._start = 8 + length
    self.specs = {name: spec for name, (spec, _) in entries.items()}
    self._offsets = {name: begin for name, (_, begin) in entries.items()}
    self._check(entries, size - self._start)

  def read(self, name: str) -> np.ndarray:
    spec = self.specs[name]
    flat = np.fromfile(
      self._path,
      DTYPES[spec.dtype],
      math.prod(spec.shape),
      offset=self._start + self._offsets[name],
    )
    return flat.reshape(spec.shape)

  def _check(self, entries, room):
    """Tensors lie one after the other and fill the file, as the format asks."""
    end = 0
    for name, (spec, begin) in sorted(entries.items(), key=lambda x: x[1][1]):
      if begin != end:
        raise self._broken(f"{name!r} begins at byte {begin:,}, not {end:,}")
      end = begin + spec.num_bytes
      if end > room:
        raise self._broken(
          f"{name!r} ends at byte {end:,} of the data, the file has {room:,}: "
          "it was cut off, copy it again"
        )
    if end != room:
      raise self._broken(f"{room - end:,} bytes at the end belong to nothing")

  def _broken(self, why):
    return errors.UserError(f"{self._path} is not a safetensors file: {why}.")


class Sharded:
  """Several safetensors files behind an index.

  Raises:
    UserError: a file is missing, or lacks what the index says.
  """

  def __init__(self, index: Path):
    try:
      where = json.loads(index.read_text())["weight_map"]
      files = {f: Safetensors(_beside(index, f)) for f in set(where.values())}
      self._files = {name: files[file] for name, file in where.items()}
      self.specs = {name: f.specs[name] for name, f in self._files.items()}
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as e:
      raise errors.UserError(f"{index} does not fit its files: {e!r}.") from e

  def read(self, name: str) -> np.ndarray:
    return self._files[name].read(name)


class Npz:
  """An npz file of plain arrays.

  Raises:
    UserError: it is no such file, was cut off, or holds Python objects.
  """

  def __init__(self, path: Path):
    self._path, size = path, _size(path)
    self.specs: dict[str, Spec] = {}
    try:
      with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
          self._add(archive, info, size)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as e:
      if isinstance(e, errors.UserError):
        raise
      raise errors.UserError(f"{path} is not an npz file: {e}.") from e

  def read(self, name: str) -> np.ndarray:
    try:
      with np.load(self._path, allow_pickle=False) as archive:
        array = archive[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as e:
      raise errors.UserError(f"{self._path}: {name!r} is damaged: {e}.") from e
    return array.view(DTYPES[self.specs[name].dtype])

  def _add(self, archive, info, size):
    name = info.filename.removesuffix(".npy")
    with archive.open(info) as file:
      version = np.lib.format.read_magic(file)
      read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
      }.get(version)
      if read is None:
        raise ValueError(f"{name!r} is of version {version}")
      shape, _, dtype = read(file)
      room = info.file_size - file.tell()
    if dtype.hasobject:
      raise errors.UserError(
        f"{self._path}: {name!r} holds Python objects, which only unpickling "
        "would read; nothing is unpickled. Save it as numbers, e.g. "
        "np.savez(F, **{name: np.asarray(x, np.float32) ...})."
      )
    if dtype == np.dtype("V2"):  # How numpy saves bfloat16.
      dtype = np.dtype(ml_dtypes.bfloat16)
    if dtype not in NAMES:
      raise ValueError(f"{name!r} is of {dtype}")
    spec = Spec(tuple(shape), NAMES[dtype])
    # Deflate never packs more than 1032 bytes into one.
    if spec.num_bytes != room or room > 1032 * size:
      raise ValueError(
        f"{name!r} claims {spec.num_bytes:,} bytes and has room for {room:,}"
      )
    self.specs[name] = spec


def open_file(path: Path) -> Tensors:
  """A file of tensors, or the one in a folder of released weights.

  Raises:
    UserError: there is none, it is damaged, or only unpickling would read it.
  """
  if path.is_dir():
    for name in (SINGLE, INDEX):
      if (path / name).is_file():
        return open_file(path / name)
    found = sorted(path.glob("*.safetensors")) or _pickled(path)
    if len(found) != 1:
      raise errors.UserError(
        f"{path} has no {SINGLE} and no {INDEX}. It has "
        f"{sorted(f.name for f in path.iterdir())[:20]}."
      )
    return open_file(found[0])
  if not path.exists():
    raise errors.UserError(f"No file at {str(path)!r}.")
  if path.suffix in PICKLED:
    raise errors.UserError(
      f"{path} is a pickle, which can run any program when it is read; nothing "
      "is unpickled here. Where you trust it, and have torch, make a "
      f"safetensors file of it: {TO_SAFETENSORS}"
    )
  if path.name.endswith(".index.json"):
    return Sharded(path)
  if path.suffix == ".npz":
    return Npz(path)
  if path.suffix == ".safetensors":
    return Safetensors(path)
  raise errors.UserError(
    f"{path}: expected a file that ends in .safetensors or .npz, or a folder "
    f"with {SINGLE}."
  )


def write(
  path: Path, specs: Mapping[str, Spec], arrays: Iterable[np.ndarray]
) -> None:
  """Writes a safetensors file; arrays come in the order of `specs`.

  Only one is in memory at a time. The file appears when it is whole.
  """
  header, end = {"__metadata__": {"format": "pt"}}, 0
  for name, spec in specs.items():
    begin, end = end, end + spec.num_bytes
    header[name] = {
      "dtype": spec.dtype,
      "shape": list(spec.shape),
      "data_offsets": [begin, end],
    }
  text = json.dumps(header, separators=(",", ":")).encode()
  text += b" " * (-len(text) % 8)  # The data begin at a multiple of 8.
  part = path.with_name(path.name + ".part")
  with part.open("wb") as file:
    file.write(struct.pack("<Q", len(text)) + text)
    for (name, spec), array in zip(specs.items(), arrays, strict=True):
      if (array.shape, NAMES[array.dtype]) != (spec.shape, spec.dtype):
        raise ValueError(f"{name}: {array.dtype}{array.shape}, not {spec}")
      np.ascontiguousarray(array).tofile(file)
  os.replace(part, path)


def _entry(value):
  """Spec and first byte of a tensor of a header."""
  spec = Spec(tuple(value["shape"]), value["dtype"])
  if spec.dtype not in DTYPES:
    raise ValueError(f"dtype {spec.dtype!r}, expected one of {sorted(DTYPES)}")
  begin, end = value["data_offsets"]
  sizes = (*spec.shape, begin, end)
  if any(type(n) is not int or n < 0 for n in sizes):
    raise ValueError(f"a size in {value} is no whole number")
  if end - begin != spec.num_bytes:
    raise ValueError(f"{value} is of {spec.num_bytes:,} bytes")
  return spec, begin


def _size(path):
  try:
    return path.stat().st_size
  except OSError as e:
    raise errors.UserError(f"No file at {str(path)!r} ({e}).") from e


def _beside(index, name):
  """A file that an index names, which must not lead out of its folder."""
  if Path(name).name != name:
    raise errors.UserError(
      f"{index} names {name!r}, expected a file beside it."
    )
  return index.parent / name


def _pickled(folder):
  return sorted(f for f in folder.iterdir() if f.suffix in PICKLED)[:1]
