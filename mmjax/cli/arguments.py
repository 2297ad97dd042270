"""Flags of a verb, and the config with its overrides."""

import ast
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections as mlc
from absl import flags

from mmjax.core import config as config_lib
from mmjax.core import errors


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag of a verb: `--name=value`."""

  name: str
  default: Any
  help: str
  required: bool = False


def parse(
  doc: str, known: Sequence[Flag], argv: Sequence[str]
) -> flags.FlagValues:
  """Parses `argv`; `--help` prints `doc` and the flags, and exits.

  Raises:
    UserError: an unknown, missing or malformed flag.
  """
  if any(a in ("-h", "--help") for a in argv):
    print(_help(doc, known))
    sys.exit(0)
  values = flags.FlagValues()
  for flag in known:
    define = {
      bool: flags.DEFINE_bool,
      int: flags.DEFINE_integer,
      float: flags.DEFINE_float,
    }.get(type(flag.default), flags.DEFINE_string)
    define(flag.name, flag.default, flag.help, flag_values=values)
  try:
    rest = values(["mmjax", *argv])[1:]
  except flags.UnrecognizedFlagError as e:
    raise errors.unknown(
      "flag", f"--{e.flagname}", [f"--{f.name}" for f in known]
    ) from e
  except flags.Error as e:
    raise errors.UserError(str(e)) from e
  if rest:
    raise errors.UserError(
      f"Unexpected argument {rest[0]!r}. Flags are written --name=value; "
      f"known: {[f'--{f.name}' for f in known]}."
    )
  for flag in known:
    if flag.required and not values[flag.name].value:
      raise errors.UserError(
        f"--{flag.name} is missing: {flag.help}\n{_help(doc, known)}"
      )
  return values


def _help(doc, known):
  rows = []
  for flag in known:
    default = "" if flag.default in ("", None) else f" [{flag.default}]"
    rows.append(f"  --{flag.name}=  {flag.help}{default}")
  return "\n".join([doc.strip(), "", "flags:", *rows])


def split_overrides(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  """Separates `--config.x=y` from the other arguments."""
  overrides = [a for a in argv if a.lstrip("-").startswith("config.")]
  return [a for a in argv if a not in overrides], overrides


def load_config(address: str, overrides: Sequence[str]) -> mlc.ConfigDict:
  """Loads, completes and overrides a config, and lets its file adapt it.

  Raises:
    UserError: no such file, an unknown key, or a value of the wrong type.
  """
  from mmjax.build import settings  # Pulls in jax: not for --help.

  loaded, adapt = config_lib.load_file(address)
  config = settings.resolve(loaded)
  config.search_path = config_lib.folder_of(address)
  if adapt is None:
    return override(config, overrides)
  # What `adapt` adds may be overridden too.
  known = [a for a in overrides if _is_known(config, _key(a))]
  override(config, known)
  with config.unlocked():
    adapt(config)
  return override(
    settings.resolve(config), [a for a in overrides if a not in known]
  )


def _key(argument: str) -> str:
  """The key of `--config.a.b=value`."""
  key = argument.lstrip("-").partition("=")[0]
  return key.removeprefix("config.")


def _is_known(config: mlc.ConfigDict, key: str) -> bool:
  try:
    _check_key(config, key)
  except errors.UserError:
    return False
  return True


def load_saved(workdir: Path, overrides: Sequence[str]) -> mlc.ConfigDict:
  """Loads the config that a workdir was made with.

  Raises:
    UserError: the workdir has none.
  """
  from mmjax.build import settings

  path = workdir / "config.json"
  if not path.is_file():
    raise errors.UserError(
      f"No run at {str(workdir)!r}: expected the file {path.name!r} that "
      "`mmjax train --workdir=...` writes."
    )
  saved = config_lib.from_plain(json.loads(path.read_text()))
  if "search_path" in saved:
    config_lib.search(saved.search_path)
  return override(settings.resolve(saved), overrides)


def override(
  config: mlc.ConfigDict, overrides: Sequence[str]
) -> mlc.ConfigDict:
  """Applies `--config.a.b=value` to a resolved config, in place.

  Not `config_flags`: that reads `sys.argv` alone, and a typo ends there in a
  list of flags instead of the nearest key.

  Raises:
    UserError: an unknown key, or a value of another type than the key's.
  """
  for argument in overrides:
    key = _key(argument)
    _, separator, text = argument.partition("=")
    _check_key(config, key)
    if not separator:
      raise errors.UserError(f"{argument!r} has no value: --config.{key}=...")
    *parents, last = key.split(".")
    node = config
    for parent in parents:
      node = node[parent]
    node[last] = _parse(key, text, node[last])
  return config


def _parse(key: str, text: str, like: Any) -> Any:
  if isinstance(like, mlc.ConfigDict):
    raise errors.UserError(
      f"config.{key} is a group; set one of its keys: {sorted(like)}."
    )
  if isinstance(like, str):
    return text
  try:
    if isinstance(like, bool):
      return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if isinstance(like, (int, float)):
      return type(like)(text)
    value = ast.literal_eval(text)
    if isinstance(like, tuple) and not isinstance(value, (tuple, list)):
      value = (value,)
    return tuple(value) if isinstance(value, list) else value
  except (ValueError, KeyError, SyntaxError) as e:
    raise errors.UserError(
      f"--config.{key}={text}: expected {type(like).__name__}, as in {like!r}."
    ) from e


def _check_key(config, key):
  node, path = config, "config"
  for part in key.split("."):
    if not isinstance(node, mlc.ConfigDict) or part not in node:
      known = list(node) if isinstance(node, mlc.ConfigDict) else []
      raise errors.UserError(
        f"Unknown key '{path}.{part}'.{errors.nearest(part, known)} "
        f"{path} has {sorted(known)}."
      )
    node, path = node[part], f"{path}.{part}"


def ready_for_grain() -> None:
  """Grain's workers read absl's global flags, which nobody else parses."""
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()
