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
from mmjax.data import broken
from mmjax.data.buckets import Buckets
from mmjax.data.input_time import Spent
from mmjax.data.sources import Source
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import Transform

MIB = 2**20
# Fields of a source that may say what it calls an example; the first counts.
KEYS = ("key", "__key__", "id", "tfds_id", "path", "file_name")
# What only a fault of a program raises; damaged data raise nearly anything.
PROGRAM_FAULTS = (
  TypeError,
  AttributeError,
  NameError,
  ImportError,
  AssertionError,
  NotImplementedError,
  MemoryError,
)


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
    max_bad_fraction: float = 0.01,
    workers: int = 0,
    buckets: Buckets | None = None,
  ):
    self.source = source
    self.transforms = tuple(transforms)
    self.name = name  # Of the source, for messages and the fingerprint.
    self.split = split
    self.tokenizer = tokenizer
    self.class_names = class_names  # Of `label`; empty without labels.
    self.buckets = buckets  # By length, if batches are of one each.
    self.workers = workers  # Processes that make batches for training.
    self.specs: dict[str, FieldSpec] = {}
    for transform in self.transforms:
      self.specs.update(transform.specs())
    self.bad: broken.BadExamples | broken.Report = broken.BadExamples(
      name, split, len(source), max_bad_fraction
    )
    self.spent = Spent()  # Seconds, of examples that `try_example` made.
    self._cache = _Cache(cache_mib * MIB)
    self._streams = tuple(
      zlib.crc32(
        getattr(transform, "stream", type(transform).__qualname__).encode()
      )
      for transform in self.transforms
    )
    self._local = threading.local()

  def __len__(self) -> int:
    return len(self.source)

  def __getstate__(self):
    # What is in memory and what was counted stays in this process.
    return {k: v for k, v in self.__dict__.items() if k != "_local"}

  def __setstate__(self, state):
    self.__dict__.update(state, _local=threading.local())

  def in_worker(self, num_workers: int) -> broken.Report:
    """Makes this a worker's copy: its share of the cache, and no judgement.

    Returns:
      What is reported to the main process.
    """
    self._cache = _Cache(self._cache.capacity // num_workers)
    self.bad = report = broken.Report()
    return report

  def example(
    self, index: int, epoch: int, seed: int, train: bool
  ) -> dict[str, Any]:
    """Returns one example: the fields of `specs`.

    With `train` False also the texts of the source as str (which fields of
    `specs` override), and no random crops or captions; masks are drawn in
    both cases.

    Raises:
      BadExample: this example cannot be used; says why.
      UserError: none can, since the config is wrong.
    """
    try:
      example = self._prepared(index)
      for transform, stream in zip(self.transforms, self._streams, strict=True):
        rng = self._generator(index, epoch, seed, stream)
        example = transform(example, rng, train=train)
    except broken.BadExample:
      raise
    except errors.UserError as e:
      raise errors.UserError(
        f"Example {index} of {self.name!r}, split {self.split!r}: {e}"
      ) from e
    except (ValueError, OSError) as e:
      raise self._bad(index, str(e)) from e
    except LookupError as e:  # Its text is no more than the name or index.
      raise self._bad(index, f"{type(e).__name__}: {e}") from e
    fields = (
      {}
      if train
      else {
        name: value for name, value in example.items() if isinstance(value, str)
      }
    )
    fields.update((name, example[name]) for name in self.specs)
    return fields

  def try_example(
    self, index: int, epoch: int, seed: int, train: bool
  ) -> dict[str, Any] | None:
    """As `example`, but None if it cannot be used; `bad` counts it.

    Raises:
      UserError: the config is wrong, or too many examples are broken.
    """
    self.bad.see()
    start = self.spent.clock()
    try:
      return self.example(index, epoch, seed, train)
    except broken.BadExample as e:
      self.bad.add(e)
      return None
    finally:
      self.spent.add(whole=self.spent.clock() - start)

  def _bad(self, index: int, reason: str) -> broken.BadExample:
    try:
      row = self.source[index]
    except Exception:  # What cannot be read has no key.
      row = {}
    keys = [row[name] for name in KEYS if isinstance(row.get(name), (str, int))]
    return broken.BadExample(
      reason,
      source=self.name,
      split=self.split,
      index=index,
      key=str(keys[0]) if keys else "",
    )

  def _read(self, index: int) -> Mapping[str, Any]:
    start = self.spent.clock()
    try:
      return self.source[index]
    except (errors.UserError, *PROGRAM_FAULTS):
      raise
    except Exception as e:
      reason = f"cannot be read: {type(e).__name__}: {e}"
      raise self._bad(index, reason) from e
    finally:
      self.spent.add(read=self.spent.clock() - start)

  def _prepared(self, index: int) -> Mapping[str, Any]:
    example = self._cache.get(index)
    if example is None:
      example = self._read(index)
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

  def __reduce__(self):
    return _Cache, (self.capacity,)  # What is kept stays where it is.

  def get(self, index: int) -> Mapping[str, Any] | None:
    return self.examples.get(index)

  def add(self, index: int, example: Mapping[str, Any]) -> None:
    size = sum(_num_bytes(value) for value in example.values())
    with self.lock:
      if index not in self.examples and self.size + size <= self.capacity:
        self.examples[index] = example
        self.size += size


def _num_bytes(value: Any) -> int:
  if isinstance(value, Mapping):
    return sum(map(_num_bytes, value.values()))
  if isinstance(value, np.ndarray):
    return value.nbytes
  if isinstance(value, (tuple, list)):
    return sum(map(_num_bytes, value))
  return len(value) if isinstance(value, (bytes, str)) else 8
