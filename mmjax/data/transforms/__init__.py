"""One example in, one example out; each transform declares its fields.

A transform is a frozen dataclass with

  __call__(example, rng, *, train) -> example   adds its fields
  specs() -> {field: FieldSpec}                 the fields that it adds

and, if the model has to know something of it,

  facts() -> {name: value}                      arguments of encoders

and, if part of its work is the same each time,

  prepare(example) -> example                   that part; may be cached

An example that it cannot use is a ValueError, LookupError or OSError: it is
skipped and counted. A `UserError` says that the config is wrong, and stops.

Each draws from a generator of its own, a function of (seed, epoch, index,
class name): adding a transform changes nothing of the others. One of your own
is named in a config: `data.extra=({"name": "package.module:Class", ...},)`.
"""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmjax.core.batch import FieldSpec

Example = Mapping[str, Any]


@runtime_checkable
class Transform(Protocol):
  """Adds fields to an example."""

  def __call__(
    self, example: Example, rng: np.random.Generator, *, train: bool
  ) -> Example: ...

  def specs(self) -> Mapping[str, FieldSpec]: ...
