"""Several examples to a row, so that little of it is padding."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, SupportsIndex

from mmjax.core import errors
from mmjax.data.sources import Source

OPEN_ROWS = 64  # That are looked at for room; more would fill them better.


def first_fit(
  sizes: Sequence[tuple[int, ...] | None],
  capacity: tuple[float | int, ...],
  open_rows: int = OPEN_ROWS,
) -> list[tuple[int, ...]]:
  """Puts each item, in order, into the first row that has room for it.

  Of many rows with room left only the newest `open_rows` are looked at. An
  item of size None, or larger than a row, has a row of its own.

  Args:
    sizes: of each item in each respect, e.g. (tokens, pictures).
    capacity: of a row in each respect; `math.inf` = no matter how much.

  Returns:
    The items of each row, ascending; rows by their first item.
  """
  rows: list[list[int]] = []
  # Row and what room is left there, the oldest first.
  room: list[tuple[int, list[float | int]]] = []
  for item, size in enumerate(sizes):
    if size is None:
      rows.append([item])
      continue
    for row, left in room:
      if all(need <= free for need, free in zip(size, left, strict=True)):
        rows[row].append(item)
        left[:] = [free - need for need, free in zip(size, left, strict=True)]
        break
    else:
      left = [free - need for need, free in zip(size, capacity, strict=True)]
      room.append((len(rows), left))
      rows.append([item])
      room = room[-open_rows:]
  return [tuple(row) for row in rows]


class Packed:
  """A source whose examples are rows of several of another source.

  Which share a row depends on the other source and the sizes alone: neither
  on the seed nor on the epoch, so a run that goes on finds the same rows.

  Args:
    source: of single examples.
    measure: example -> its size in each respect; a ValueError, LookupError or
      OSError marks a broken one, which has a row of its own.
    capacity: of a row.
    field: of a row's example that holds the tuple of its parts.
  """

  def __init__(
    self,
    source: Source,
    measure: Callable[[Mapping[str, Any]], tuple[int, ...]],
    capacity: tuple[float | int, ...],
    field: str,
  ):
    self._source = source
    self._field = field
    self._sizes = [measured(source, i, measure) for i in range(len(source))]
    self.rows = first_fit(self._sizes, capacity)

  def fullest(self, respect: int) -> int:
    """The most that a row holds in one respect."""
    return max(
      sum(size[respect] for i in row if (size := self._sizes[i]))
      for row in self.rows
    )

  def __len__(self) -> int:
    return len(self.rows)

  def __getitem__(self, index: SupportsIndex, /) -> dict[str, Any]:
    row = self.rows[index.__index__()]
    examples = tuple(self._source[i] for i in row)
    ids = [str(e["id"]) for e in examples if "id" in e]
    return {self._field: examples, **({"id": "+".join(ids)} if ids else {})}


def measured(
  source: Source,
  index: int,
  measure: Callable[[Mapping[str, Any]], tuple[int, ...]],
) -> tuple[int, ...] | None:
  """The size of an example, or None if it is broken."""
  try:
    return measure(source[index])
  except errors.UserError:
    raise
  except (ValueError, LookupError, OSError):
    return None  # Broken: whoever reads it counts it.
