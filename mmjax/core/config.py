"""Config files: load, complete, freeze to JSON, compare."""

import importlib.util
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_collections as mlc

from mmjax.core import errors

SUFFIX = ".py"


def load(address: str) -> mlc.ConfigDict:
  """Runs `get_config(arg)` of a file given as `FILE` or `FILE:arg`.

  See `load_file`.
  """
  return load_file(address)[0]


def load_file(
  address: str,
) -> tuple[mlc.ConfigDict, Callable[[mlc.ConfigDict], None] | None]:
  """The config of a file, and its function `adapt(config)` if it has one.

  That changes what depends on other settings, once these are final: it is
  called after overrides. The file's folder is put on `sys.path`, so that a
  plug-in beside a config ("my_objective:Mine") is found.

  Raises:
    UserError: no such file, no `get_config`, or it fails.
  """
  file, arg = _split_address(address)
  path = Path(file)
  if not path.is_file():
    folder = path.parent if path.parent.is_dir() else Path(".")
    near = errors.nearest(path.name, [p.name for p in folder.glob("*.py")])
    raise errors.UserError(
      f"No config file at {str(path)!r}.{near} Expected a Python file with "
      "get_config(arg: str = '')."
    )
  search(folder_of(address))
  spec = importlib.util.spec_from_file_location("mmjax_config", path)
  assert spec is not None and spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
  except Exception as e:
    raise errors.UserError(
      f"The config file {str(path)!r} does not run: {type(e).__name__}: {e}"
    ) from e
  if not hasattr(module, "get_config"):
    raise errors.UserError(f"{str(path)!r} has no get_config(arg: str = '').")
  try:
    config = module.get_config(arg) if arg else module.get_config()
  except Exception as e:
    raise errors.UserError(
      f"get_config({arg!r}) of {str(path)!r} fails: {type(e).__name__}: {e}"
    ) from e
  made = mlc.ConfigDict(_unshared(mlc.ConfigDict(config)))
  return made, getattr(module, "adapt", None)


def folder_of(address: str) -> str:
  """The folder of a config file given as `FILE` or `FILE:arg`."""
  return str(Path(_split_address(address)[0]).resolve().parent)


def search(path: str) -> None:
  """Lets plug-ins in a folder be named as "module:Class"."""
  if path and path not in sys.path:
    sys.path.append(path)


def _unshared(value: Any) -> Any:
  # A dict that stands in two places would be one section under two names: to
  # override a key of one would change the other.
  if isinstance(value, mlc.ConfigDict):
    return {key: _unshared(item) for key, item in value.items()}
  return value


def _split_address(address: str) -> tuple[str, str]:
  file, separator, arg = address.partition(SUFFIX + ":")
  return (file + SUFFIX, arg) if separator else (address, "")


def complete(
  config: mlc.ConfigDict, defaults: Mapping[str, Any]
) -> mlc.ConfigDict:
  """Fills in defaults, so that each known key can be overridden by a flag.

  Raises:
    UserError: the config has a top-level group that `defaults` has not, or a
      value of another type than the default.
  """
  for key in config:
    if key not in defaults:
      raise errors.UserError(
        f"Unknown group 'config.{key}'.{errors.nearest(key, defaults)} "
        f"Known: {sorted(defaults)}."
      )
  merged = mlc.ConfigDict(dict(defaults), convert_dict=True)
  with merged.unlocked():
    _update(merged, config)
  merged.lock()
  return merged


def _update(
  target: mlc.ConfigDict, source: mlc.ConfigDict, path: str = "config"
) -> None:
  for key in source:
    value = source[key]
    if (
      isinstance(value, mlc.ConfigDict)
      and key in target
      and isinstance(target[key], mlc.ConfigDict)
    ):
      _update(target[key], value, f"{path}.{key}")
      continue
    # Numbers keep the type of the default: `weight=1` means 1.0.
    if (
      key in target
      and isinstance(target[key], float)
      and isinstance(value, int)
      and not isinstance(value, bool)
    ):
      value = float(value)
    try:
      target[key] = value
    except TypeError as e:
      raise errors.UserError(
        f"{path}.{key}={value!r} is of type {type(value).__name__}, "
        f"expected {type(target[key]).__name__} like {target[key]!r}."
      ) from e


def plain(config: Any) -> Any:
  """Turns a config into dicts, lists, numbers and strings, as JSON has them."""
  if isinstance(config, mlc.ConfigDict):
    config = config.to_dict()
  return json.loads(json.dumps(config, sort_keys=True))


def diff(
  old: Mapping[str, Any], new: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Returns `{"a.b": (old value, new value)}` for plain configs."""
  flat_old, flat_new = _flatten(old), _flatten(new)
  absent = "(absent)"
  return {
    key: (flat_old.get(key, absent), flat_new.get(key, absent))
    for key in sorted(flat_old.keys() | flat_new.keys())
    if flat_old.get(key, absent) != flat_new.get(key, absent)
  }


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for key, value in config.items():
    if isinstance(value, Mapping) and value:
      flat.update(_flatten(value, f"{prefix}{key}."))
    else:
      flat[f"{prefix}{key}"] = value
  return flat


def from_plain(values: Mapping[str, Any]) -> mlc.ConfigDict:
  """Inverse of `plain`: JSON has lists where a config has tuples."""

  def convert(value):
    if isinstance(value, Mapping):
      return {k: convert(v) for k, v in value.items()}
    if isinstance(value, list):
      return tuple(convert(v) for v in value)
    return value

  return mlc.ConfigDict(convert(values))
