"""Keys of their configs <-> keys of ours."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from mmjax.core import errors

ABSENT = object()  # In place of a value: there is none.
TOWER = "_config"  # How names of the configs of towers end.


@dataclasses.dataclass(frozen=True)
class Key:
  """A key of our config <-> one of theirs; either may be fixed instead.

  `ours` is a path such as "model.encoders.text.pool". Objectives stand there
  without their tasks: "objectives.mlm.name".
  """

  ours: str = ""
  theirs: str = ""
  value: Any = ABSENT  # What it has to be, on the one side that is named.
  default: Any = ABSENT  # Where their config lacks the key.
  into: Callable[[Any], Any] = lambda value: value  # Ours of theirs.
  back: Callable[[Any], Any] = lambda value: value  # Theirs of ours.
  when: str = ""  # Parts, see `Found.holds`.
  # No: what is fixed may have another value, theirs since it is not used, ours
  # since nothing of theirs depends on it.
  checked: bool = True


def read(key: Key, config: dict[str, Any]) -> None:
  """Fills a default in, and checks what is fixed.

  Raises:
    UserError: a value that models here can't have, or none.
  """
  value = config.get(key.theirs)
  if not key.ours:
    if key.checked and value not in (None, key.value):
      raise errors.UserError(
        f"config.json has {key.theirs}={value!r}; models here can only have "
        f"{key.value!r}."
      )
    return
  if value is None:
    if key.default is ABSENT:
      raise errors.UserError(f"config.json lacks {key.theirs!r}.")
    default = key.default
    config[key.theirs] = default(config) if callable(default) else default


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
  """Configs of towers among the rest: "text_config.hidden_size"."""
  made: dict[str, Any] = {}
  for name, value in config.items():
    if name.endswith(TOWER) and isinstance(value, Mapping):
      made |= {f"{name}.{k}": v for k, v in value.items()}
    else:
      made[name] = value
  return made


def nested(flat: Mapping[str, Any]) -> dict[str, Any]:
  """The inverse of `flat`."""
  config: dict[str, Any] = {}
  for name, value in flat.items():
    tower, dot, key = name.partition(".")
    if dot and tower.endswith(TOWER):
      config.setdefault(tower, {})[key] = value
    else:
      config[name] = value
  return config
