"""How an array of one library becomes that of another, and back.

Each knows both ways: `into` makes ours of theirs, `back` theirs of ours, and
`into(back(x)) == x` bit for bit. Our kernels keep their axes (`d k h` of
queries: channels in, heads, channels of a head), so the shape of ours decides
how theirs is split.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from mmjax.core import errors

Shape = tuple[int, ...]
Arrays = Sequence[np.ndarray]


@runtime_checkable
class Transform(Protocol):
  """Some arrays <-> some arrays."""

  def into(self, theirs: Arrays, shapes: Sequence[Shape]) -> list[np.ndarray]:
    """Ours, of these shapes."""

  def back(self, ours: Arrays) -> list[np.ndarray]:
    """Theirs."""


@dataclasses.dataclass(frozen=True)
class Same:
  """The same numbers in the same order; `lead` axes of 1 stand before ours."""

  lead: int = 0

  def into(self, theirs, shapes):
    return [theirs[0].reshape(theirs[0].shape[self.lead :])]

  def back(self, ours):
    return [ours[0].reshape((1,) * self.lead + ours[0].shape)]


@dataclasses.dataclass(frozen=True)
class Flat:
  """Theirs is ours with all axes in one: biases of heads."""

  def into(self, theirs, shapes):
    return [_shaped(theirs[0], shapes[0])]

  def back(self, ours):
    return [ours[0].reshape(-1)]


@dataclasses.dataclass(frozen=True)
class Matrix:
  """A kernel as one matrix: (in, out), or transposed as in torch (out, in).

  `num_in` is the number of axes of ours that are summed over.
  """

  num_in: int = 1
  transposed: bool = True

  def into(self, theirs, shapes):
    matrix = theirs[0].T if self.transposed else theirs[0]
    size = math.prod(shapes[0][: self.num_in])
    if matrix.ndim != 2 or matrix.shape[0] != size:
      raise _misfit(theirs[0], shapes[0])
    return [_shaped(matrix, shapes[0])]

  def back(self, ours):
    size = math.prod(ours[0].shape[: self.num_in])
    matrix = ours[0].reshape(size, -1)
    return [matrix.T if self.transposed else matrix]


@dataclasses.dataclass(frozen=True)
class Merged:
  """One of theirs is several of ours, side by side on an axis: q, k, v."""

  axis: int
  each: Transform

  def into(self, theirs, shapes):
    if theirs[0].shape[self.axis] % len(shapes):
      raise _misfit(theirs[0], shapes[0])
    parts = np.split(theirs[0], len(shapes), self.axis)
    pairs = zip(parts, shapes, strict=True)
    return [self.each.into([part], [shape])[0] for part, shape in pairs]

  def back(self, ours):
    parts = [self.each.back([x])[0] for x in ours]
    return [np.concatenate(parts, self.axis)]


@dataclasses.dataclass(frozen=True)
class Patches:
  """The kernel of a convolution whose stride is its size; ours `(p p c) d`.

  Theirs is `d c p p` in torch, `p p c d` in JAX.
  """

  torch: bool = True
  channels: int = 3

  def into(self, theirs, shapes):
    kernel = theirs[0]
    if kernel.ndim != 4:
      raise _misfit(kernel, shapes[0])
    kernel = kernel.transpose(2, 3, 1, 0) if self.torch else kernel  # p p c d
    return [_shaped(kernel, shapes[0])]

  def back(self, ours):
    side = math.isqrt(ours[0].shape[0] // self.channels)
    kernel = ours[0].reshape(side, side, self.channels, -1)  # p p c d
    return [kernel.transpose(3, 2, 0, 1) if self.torch else kernel]


@dataclasses.dataclass(frozen=True)
class Windows:
  """The kernel of a convolution over time: theirs `d c w`, ours `(w c) d`."""

  width: int

  def into(self, theirs, shapes):
    if theirs[0].ndim != 3 or theirs[0].shape[2] != self.width:
      raise _misfit(theirs[0], shapes[0])
    return [_shaped(theirs[0].transpose(2, 1, 0), shapes[0])]

  def back(self, ours):
    kernel = ours[0].reshape(self.width, -1, ours[0].shape[1])  # w c d
    return [kernel.transpose(2, 1, 0)]


@dataclasses.dataclass(frozen=True)
class Rows:
  """Rows of a table: theirs has some first that nobody reads, ours more last.

  Rows that only ours has are of tokens that theirs lacks.
  """

  skip: int = 0  # First rows of theirs, which come back as zeros.
  used: int | None = None  # Rows after these; None = all of ours.
  fill: float = 0.0  # What rows of ours alone hold.

  def into(self, theirs, shapes):
    rows = theirs[0][self.skip :]
    room = shapes[0][0] - len(rows)
    if room < 0 or (room and len(rows) != self.used):
      raise _misfit(theirs[0], shapes[0])
    more = _zeros(room, rows) + np.float32(self.fill)
    return [np.concatenate([rows, more]) if room else rows]

  def back(self, ours):
    rows = ours[0] if self.used is None else ours[0][: self.used]
    if np.any(ours[0][len(rows) :] != self.fill):
      raise errors.UserError(
        f"Rows {len(rows)} and on of a table were trained: tokens that were "
        "added to the vocabulary have no place there."
      )
    return [np.concatenate([_zeros(self.skip, rows), rows])]


@dataclasses.dataclass(frozen=True)
class WithClass:
  """Theirs: a class token and positions, its own first; ours adds these two.

  Theirs `1 1 d` and `1 1+n d`, ours `1 1 d` and `n d`. The sum comes back as
  the token, with a position of zero. `lead` is False where theirs are `d` and
  `1+n d`.
  """

  lead: bool = True

  def into(self, theirs, shapes):
    token, positions = theirs
    positions = positions[0] if self.lead else positions
    token = token.reshape(1, 1, -1) + positions[None, :1]
    return [token, positions[1:]]

  def back(self, ours):
    token, positions = ours
    positions = np.concatenate([_zeros(1, positions), positions])
    return [token, positions[None]] if self.lead else [token[0, 0], positions]


@dataclasses.dataclass(frozen=True)
class WithoutClass:
  """Positions of theirs, `1 1+n d`, of which that of the class token is 0.

  Ours has none of it: `n d`.
  """

  def into(self, theirs, shapes):
    if np.any(theirs[0][0, 0]):
      raise errors.UserError(
        "The class token has a position of its own, for which models here "
        "have no place."
      )
    return [theirs[0][0, 1:]]

  def back(self, ours):
    return [np.concatenate([_zeros(1, ours[0]), ours[0]])[None]]


@dataclasses.dataclass(frozen=True)
class Absent:
  """Ours alone: zeros, and `rest` from row `used` on. Theirs has no such."""

  used: int
  rest: float = 0.0

  def into(self, theirs, shapes):
    made = np.zeros(shapes[0], np.float32)
    made[self.used :] = self.rest
    return [made]

  def back(self, ours):
    if np.any(ours[0][: self.used]):
      raise errors.UserError(
        "A bias was trained that has no place there. Train with it in "
        "finetune.frozen if you want to export."
      )
    return []


def _shaped(array, shape):
  if array.size != math.prod(shape):
    raise _misfit(array, shape)
  return array.reshape(shape)


def _zeros(count, like):
  return np.zeros((count, *like.shape[1:]), like.dtype)


def _misfit(array, shape):
  return errors.UserError(f"{tuple(array.shape)} does not become {shape}.")
