"""The texts that a host batch says of its examples."""

from collections.abc import Mapping
from typing import Any

import numpy as np

SEPARATOR = "|"  # Of several texts in one field of a source.


def of_field(
  batch: Mapping[str, np.ndarray], field: str, tokenizer: Any
) -> list[list[str]]:
  """The texts in a field, for each example.

  A field of ids is one text; one of the source's own may be several, with "|"
  between them.
  """
  values = batch[field]
  if values.dtype != object:
    return [[tokenizer.decode(row)] for row in values]
  return [str(value).split(SEPARATOR) for value in values]


def one_of_field(
  batch: Mapping[str, np.ndarray], field: str, tokenizer: Any
) -> list[str]:
  """As `of_field`, if each example has one."""
  return [
    SEPARATOR.join(several) for several in of_field(batch, field, tokenizer)
  ]
