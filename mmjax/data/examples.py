"""One example from a source through its transforms, as a pure function.

`Pipeline.example(index, epoch, seed, train)`: what is cropped, said and hidden
depends on nothing else, so a run that is resumed, or spread over other
machines, sees the same examples.
"""

import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data.sources import Source
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import Transform

MIB = 2**20


class Pipeline:
  """A source and the transforms that make its examples fit a model."""

  def __init__(
    self,
    source: Source,
    transforms: Sequence[Transform],
    *,
    name: str = "",
    split: str = "",
    tokenizer: TextTokenizer | None = None,
    class_names: tuple[str, ...] = (),
    cache_mib: int = 256,
  ):
    self.source = source
    self.transforms = tuple(transforms)
    self.name = name  # Of the source, for messages and the fingerprint.
    self.split = split
    self.tokenizer = tokenizer
    self.class_names = class_names  # Of `label`; empty without labels.
    self.specs: dict[str, FieldSpec] = {}
    for transform in self.transforms:
      self.specs.update(transform.specs())
    self._cache = _Cache(cache_mib * MIB)
    self._streams = tuple(
      zlib.crc32(type(transform).__qualname__.encode())
      for transform in self.transforms
    )
    self._local = threading.local()

  def __len__(self) -> int:
    return len(self.source)

  def example(
    self, index: int, epoch: int, seed: int, train: bool
  ) -> dict[str, Any]:
    """Returns one example: the fields of `specs`.

    With `train` False also the texts of the source as str (which fields of
    `specs` override), and no random crops or captions; masks are drawn in
    both cases.

    Raises:
      UserError: the example is broken; names source, split, index and reason.
    """
    try:
      example = self._prepared(index)
      for transform, stream in zip(self.transforms, self._streams, strict=True):
        rng = self._generator(index, epoch, seed, stream)
        example = transform(example, rng, train=train)
    except (ValueError, LookupError, OSError) as e:
      raise errors.UserError(
        f"Example {index} of {self.name!r}, split {self.split!r}, cannot be "
        f"used: {e}"
      ) from e
    fields = (
      {}
      if train
      else {
        name: value for name, value in example.items() if isinstance(value, str)
      }
    )
    fields.update((name, example[name]) for name in self.specs)
    return fields

  def _prepared(self, index: int) -> Mapping[str, Any]:
    example = self._cache.get(index)
    if example is None:
      example = self.source[index]
      for transform in self.transforms:
        if hasattr(transform, "prepare"):
          example = transform.prepare(example)
      self._cache.add(index, example)
    return example

  def _generator(
    self, index: int, epoch: int, seed: int, stream: int
  ) -> np.random.Generator:
    # Counter-based, so that each example has a stream of its own; the low two
    # words count the draws. A thread keeps its generator: to set the state
    # takes a sixth of the time of a new one.
    if not hasattr(self._local, "generator"):
      self._local.generator = np.random.Generator(np.random.Philox(0))
      self._local.state = self._local.generator.bit_generator.state
      self._local.state["buffer_pos"] = 4  # The buffer is used up.
    state = self._local.state["state"]
    state["counter"][:] = 0, 0, index, epoch
    state["key"][:] = seed, stream
    self._local.generator.bit_generator.state = self._local.state
    return self._local.generator


@dataclass
class _Cache:
  """Keeps the first examples that fit; safe for threads."""

  capacity: int  # Bytes.
  size: int = 0
  examples: dict[int, Mapping[str, Any]] = field(default_factory=dict)
  lock: threading.Lock = field(default_factory=threading.Lock)

  def get(self, index: int) -> Mapping[str, Any] | None:
    return self.examples.get(index)

  def add(self, index: int, example: Mapping[str, Any]) -> None:
    size = sum(_num_bytes(value) for value in example.values())
    with self.lock:
      if index not in self.examples and self.size + size <= self.capacity:
        self.examples[index] = example
        self.size += size


def _num_bytes(value: Any) -> int:
  if isinstance(value, np.ndarray):
    return value.nbytes
  return len(value) if isinstance(value, (bytes, str)) else 8
