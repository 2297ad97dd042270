"""Looks names up: a registry is a plain dict in a room's `__init__.py`.

A name with a colon is an address, `"package.module:Class"`: so a user's own
file plugs in without an edit to mmjax.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from mmjax.core import errors


def lookup(kind: str, name: str, table: Mapping[str, Any]) -> Any:
  """Returns `table[name]`, or the object at the address `name`.

  Raises:
    UserError: unknown name (with the nearest known one), or an address that
      does not import.
  """
  if not isinstance(name, str) or not name:
    raise errors.unknown(kind, str(name), table)
  if ":" not in name:
    if name not in table:
      raise errors.unknown(kind, name, table)
    return table[name]
  module_name, _, attribute = name.partition(":")
  try:
    module = importlib.import_module(module_name)
  except ImportError as e:
    raise errors.UserError(
      f"Cannot import {module_name!r} for the {kind} {name!r}: {e}. Is its "
      "folder on PYTHONPATH?"
    ) from e
  if not hasattr(module, attribute):
    raise errors.UserError(
      f"{module_name!r} has no {attribute!r} (for the {kind} {name!r})."
      f"{errors.nearest(attribute, vars(module))}"
    )
  return getattr(module, attribute)


def construct(
  path: str, cls: Callable[..., Any], fields: Mapping[str, Any], **given: Any
) -> Any:
  """Calls `cls(**fields, **given)`, with errors that speak of the config.

  Args:
    path: where `fields` stand in the config, e.g. "model.encoders.image".
    given: what the config does not say: sizes taken from other objects.

  Raises:
    UserError: an unknown, missing or wrong field.
  """
  known = field_names(cls)
  for name in fields:
    if known is not None and name not in known:
      raise errors.UserError(
        f"Unknown key 'config.{path}.{name}'."
        f"{errors.nearest(name, known)} {cls.__name__} takes "
        f"{sorted(set(known) - set(given))}."
      )
  try:
    return cls(**{**given, **fields})
  except (TypeError, ValueError) as e:
    raise errors.UserError(f"config.{path}: {e}") from e


def field_names(cls: Callable[..., Any]) -> list[str] | None:
  """Names of the arguments of `cls`; None if it takes any."""
  parameters = inspect.signature(cls).parameters.values()
  if any(p.kind is p.VAR_KEYWORD for p in parameters):
    return None
  # `parent` and `name` are fields of every Linen module, not of a config.
  return [p.name for p in parameters if p.name not in ("parent", "name")]
