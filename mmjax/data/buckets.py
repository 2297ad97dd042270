"""Batches of texts of similar length: few shapes, and little padding.

Which bucket a step takes is a function of (seed, step), as all of the order of
the data: nothing has to be saved to go on. Each bucket has an order of its own,
a new one every time that it was gone through, and its batches are strewn among
those of the others, as many as it has examples for. What is left over in an
epoch begins the next one's batches of its bucket: nothing is dropped, nothing
is repeated.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data import order
from mmjax.data.packing import measured
from mmjax.data.sources import Source
from mmjax.data.transforms import Transform
from mmjax.data.transforms.text import SEPARATOR, MaskText, TextTransform


@dataclasses.dataclass(frozen=True)
class Buckets:
  """The examples of a source by the length of their texts."""

  lengths: tuple[int, ...]  # Of the longest text of each bucket, tokens.
  members: tuple[Int[np.ndarray, "..."], ...]  # Indices, ascending.
  slots: tuple[int, ...] = ()  # Hidden tokens of each; () = none are hidden.

  @property
  def counts(self) -> tuple[int, ...]:
    """Examples of each."""
    return tuple(map(len, self.members))

  def width(self, name: str, spec: FieldSpec, bucket: int) -> int | None:
    """Tokens, or slots, of a field in a bucket; None if it stays as it is."""
    if name != "text" and not name.startswith("text_"):
      return None
    if spec.axes == "t":
      return self.lengths[bucket]
    return self.slots[bucket] if spec.axes == "k" and self.slots else None

  def trim(
    self,
    batch: Mapping[str, np.ndarray],
    specs: Mapping[str, FieldSpec],
    bucket: int,
  ) -> dict[str, np.ndarray]:
    """Cuts the texts of a batch to the length of their bucket.

    Raises:
      UserError: one of them is longer.
    """
    length = self.lengths[bucket]
    if batch["text_mask"][:, length:].any():
      raise errors.UserError(
        f"A text is longer than the {length} tokens that were counted for it: "
        "the source gives other texts than when it was opened."
      )
    return {
      name: value[:, : self.width(name, specs[name], bucket)]
      if name in specs and value.ndim > 1
      else value
      for name, value in batch.items()
    }


def make_buckets(
  lengths: Sequence[int], source: Source, transforms: Sequence[Transform]
) -> Buckets:
  """Sorts the examples of a source by length; reads all of its texts.

  Whatever training draws of an example (a caption, a language) fits into its
  bucket. Broken ones are with the most, where others can take their place.

  Raises:
    UserError: no texts, or lengths that don't ascend to `max_tokens`.
  """
  text = next((t for t in transforms if isinstance(t, TextTransform)), None)
  mask = next((t for t in transforms if isinstance(t, MaskText)), None)
  if text is None:
    raise errors.UserError(
      "config.data.buckets are lengths of texts: they need config.data.text, "
      "and not as one of config.data.optional."
    )
  if not _rising(lengths) or lengths[-1] != text.max_tokens:
    raise errors.UserError(
      f"config.data.buckets={lengths}: expected lengths of 3 tokens or "
      f"more, each longer than the one before, the last config.data.text."
      f"max_tokens={text.max_tokens}."
    )

  def measure(example):
    tokens, hidden = text.most_tokens(example), 0
    if mask:
      texts = map(SEPARATOR.join, text.longest(example))
      hidden = mask.most_hidden(tokens, texts)
    return tokens, hidden

  sizes = [measured(source, i, measure) for i in range(len(source))]
  found = np.array([(0, 0) if s is None else s for s in sizes], np.int64)
  bucket = np.searchsorted(lengths, found[:, 0])
  broken = found[:, 0] == 0
  if not broken.all():
    bucket[broken] = np.bincount(bucket[~broken]).argmax()
  members = [np.flatnonzero(bucket == k) for k in range(len(lengths))]
  slots = tuple(max([1, *found[m, 1].tolist()]) for m in members)
  return Buckets(tuple(lengths), tuple(members), slots if mask else ())


def _rising(lengths):
  if not isinstance(lengths, Sequence) or not all(
    type(length) is int for length in lengths
  ):
    return False
  return list(lengths) == sorted(set(lengths)) and lengths[0] >= 3


@dataclasses.dataclass(frozen=True)
class BucketOrder:
  """Which bucket each step takes, and which of its batches.

  Before epoch e a bucket of n examples has given floor(e n / b) batches of b,
  so in the long run each has its share, and an epoch leaves less than a batch
  of each bucket to the next.
  """

  counts: tuple[int, ...]  # Examples of each bucket.
  sizes: tuple[int, ...]  # Examples of its batches.
  seed: int

  def at(self, step: int) -> tuple[int, int]:
    """The bucket of a step, and the number of its batch in that bucket."""
    epoch = self._epoch(step)
    before, shares = self._before(epoch), self._shares(epoch)
    total, first = sum(shares), sum(before)
    position = np.array([epoch * total + step - first])
    slot = int(order.shuffle(position, total, self.seed)[1][0])
    for bucket, share in enumerate(shares):
      if slot < share:
        return bucket, before[bucket] + slot
      slot -= share
    raise AssertionError("The shares are all slots.")

  def examples(self, step: int) -> int:
    """How many examples the steps before this one took."""
    epoch = self._epoch(step)
    before, shares = self._before(epoch), self._shares(epoch)
    taken = step - sum(before)
    if taken:
      positions = epoch * sum(shares) + np.arange(taken)
      _, slots = order.shuffle(positions, sum(shares), self.seed)
      ends = np.cumsum(shares)
      drawn = np.searchsorted(ends, slots, side="right")
      more = np.bincount(drawn, minlength=len(shares)).tolist()
      before = [a + b for a, b in zip(before, more, strict=True)]
    return sum(b * size for b, size in zip(before, self.sizes, strict=True))

  def _epoch(self, step):
    epoch = int(step / self._rate)
    while sum(self._before(epoch)) > step:
      epoch -= 1
    while sum(self._before(epoch + 1)) <= step:
      epoch += 1
    return epoch

  @functools.cached_property
  def _rate(self) -> float:
    """Batches an epoch, the mean."""
    return sum(n / b for n, b in zip(self.counts, self.sizes, strict=True))

  def _before(self, epoch):
    """Batches of each bucket before an epoch."""
    pairs = zip(self.counts, self.sizes, strict=True)
    return [epoch * n // b for n, b in pairs]

  def _shares(self, epoch):
    """Batches of each bucket within an epoch."""
    after = self._before(epoch + 1)
    return [b - a for a, b in zip(self._before(epoch), after, strict=True)]


def batch_sizes(
  lengths: Sequence[int], budget: int, multiple: int
) -> tuple[int, ...]:
  """Examples of a batch of each length: as many as the tokens are enough for.

  Args:
    lengths: of texts, tokens.
    budget: tokens of a batch, padding included.
    multiple: sizes are multiples of it.

  Raises:
    UserError: it is not enough for `multiple` texts.
  """
  sizes = tuple(budget // n // multiple * multiple for n in lengths)
  if not all(sizes):
    raise errors.UserError(
      f"train.tokens_per_batch={budget}: {multiple} texts "
      f"(train.batch_multiple) of {max(lengths)} tokens are more. Expected at "
      f"least {multiple * max(lengths)}."
    )
  return sizes
