"""Makes what a section of a config names."""

import inspect
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc

from mmjax.core import errors, registry

# A group of a config, or the plain dict it stands for.
Section = Mapping[str, Any] | mlc.ConfigDict


# Facts that are the least that a section may ask for.
LEAST = ("max_tokens",)


def plain(value: Any) -> Any:
  """A group of a config as a dict; other values as they are."""
  return value.to_dict() if isinstance(value, mlc.ConfigDict) else value


def plug_in(
  kind: str,
  path: str,
  section: Section,
  table: Mapping[str, Any],
  facts: Mapping[str, Any],
  skip: tuple[str, ...] = (),
) -> Any:
  """Makes what `section["name"]` names, with the section's other fields.

  `facts` are what the config need not say; each is passed if the factory has
  an argument of that name. A fact that the section also sets must agree, if
  it isn't None there; one of `LEAST` may be more there.
  """
  fields = dict(plain(section))
  factory = registry.lookup(kind, fields.pop("name", ""), table)
  accepted = registry.field_names(factory)
  for key in fields:
    if accepted is not None and key not in (*accepted, *skip):
      known = sorted({*accepted, *skip} - set(facts))
      raise errors.UserError(
        f"Unknown key 'config.{path}.{key}'.{errors.nearest(key, known)} "
        f"{factory.__name__} takes {known}."
      )
  for key in skip:
    fields.pop(key, None)
  known = inspect.signature(factory).parameters
  given = {key: value for key, value in facts.items() if key in known}
  for key, value in given.items():
    asked = fields.get(key)
    if key in LEAST and isinstance(asked, int) and asked > value:
      continue
    if isinstance(value, int) and asked not in (None, value):
      raise errors.UserError(
        f"config.{path}.{key}={fields[key]} but the data has {value}."
      )
  return registry.construct(path, factory, fields, **given)
