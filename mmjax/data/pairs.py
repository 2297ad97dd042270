"""Pairs of examples that show the same thing."""

from collections.abc import Mapping
from typing import Any, SupportsIndex

from mmjax.core import errors
from mmjax.data.sources import Source
from mmjax.data.transforms.text import text_field


class Paired:
  """A source whose examples also hold a picture of another example.

  The partner is the next example, cyclically, whose text field `key` is the
  same; without one, the example itself.

  Raises:
    UserError: the source has no such field.
  """

  def __init__(self, source: Source, key: str, field: str = "image"):
    self._source = source
    self._field = field
    self.other = f"{field}_other"  # The field that is added.
    if hasattr(source, "class_names"):
      self.class_names = source.class_names
    if hasattr(source, "splits"):
      self.splits = source.splits
    if hasattr(source, "find_classes"):
      self.find_classes = source.find_classes
    self._partner = _partners(source, key)

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: SupportsIndex, /) -> Mapping[str, Any]:
    example = self._source[index]
    partner = self._partner[index.__index__()]
    if self._field not in example:
      raise errors.unknown("field of the source", self._field, example)
    return {**example, self.other: self._source[partner][self._field]}


def _partners(source, key):
  groups: dict[str, list[int]] = {}
  partners = list(range(len(source)))
  for i in partners:
    try:
      name = text_field(source[i], key)
    except errors.UserError:
      raise
    except (ValueError, LookupError, OSError):
      continue  # Broken: whoever reads it counts it.
    groups.setdefault(name, []).append(i)
  for group in groups.values():
    for place, i in enumerate(group):
      partners[i] = group[(place + 1) % len(group)]
  return partners
