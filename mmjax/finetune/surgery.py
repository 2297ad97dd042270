"""Moves parameters of one model into another that is not quite the same.

Nothing is skipped in silence: each parameter of the model is loaded or named
as new, each one of the checkpoint is used or named as dropped.
"""

import collections
import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from mmjax.core import errors, trees
from mmjax.finetune import inflate as inflate_lib
from mmjax.finetune import resize as resize_lib

LIMIT = 20  # Names listed of each kind of problem.

Renames = Mapping[str, str] | Iterable[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class LoadReport:
  """What went where; printed, one line per top-level name."""

  loaded: Mapping[str, str]  # Name in the model -> name in the checkpoint.
  new: tuple[str, ...]  # Of the model: as it was initialised.
  replaced: tuple[str, ...]  # Of the checkpoint: the model has it as new.
  dropped: tuple[str, ...]  # Of the checkpoint: not used.
  cast: tuple[str, ...]  # Of the model: the checkpoint has another dtype.
  # Name in the model -> what was done to make it fit.
  changed: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    total = len(self.loaded) + len(self.new)
    lines = [f"loaded {len(self.loaded)} of {total} parameters"]
    origins: dict[str, collections.Counter] = {}
    for name, source in self.loaded.items():
      group = origins.setdefault(_top(name), collections.Counter())
      group[_top(source)] += 1
    fresh = collections.Counter(_top(name) for name in self.new)
    for top in sorted(origins.keys() | fresh.keys()):
      parts = [
        f"{count} loaded" + (f" from {source}" if source != top else "")
        for source, count in sorted(origins.get(top, {}).items())
      ]
      parts += [f"{fresh[top]} new"] if fresh[top] else []
      lines.append(f"  {top}: {', '.join(parts)}")
    for title, names in (
      ("replaced by new", self.replaced),
      ("dropped", self.dropped),
    ):
      groups = collections.Counter(_top(name) for name in names)
      lines += [
        f"  {top} of the checkpoint: {count} {title}"
        for top, count in sorted(groups.items())
      ]
    if self.cast:
      lines.append(f"  {len(self.cast)} cast to the model's dtype")
    lines += [f"  {name}: {what}" for name, what in self.changed.items()]
    return "\n".join(lines)


def load_partial(
  target_params: Any,
  source_params: Any,
  *,
  rename: Renames = (),
  new: Sequence[str] = (),
  dropped: Sequence[str] = (),
  only: Sequence[str] = (),
  resize: Sequence[Any] = (),
  resize_method: str = "linear",
  inflate: str = "",
) -> tuple[dict[str, Any], LoadReport]:
  r"""Fills a tree with the arrays of another one.

  Also for other collections than parameters. All patterns are regular
  expressions for whole slash names.

  Args:
    target_params: of the model; arrays, or shapes where all is loaded.
    source_params: of the checkpoint.
    rename: pattern of a checkpoint name -> name in the model, which may use
      groups: `{"trunk/(.*)": r"fusion/\1"}`. Pairs do as well, since a config
      allows no dots in keys. The first pattern that matches counts.
    new: patterns of model names that stay as initialised. They are not
      loaded, even if the checkpoint has them.
    dropped: patterns of checkpoint names, before renaming, that are not used.
    only: patterns of checkpoint names, before renaming, that alone are used;
      none = all.
    resize: patterns of model names: tables of learned positions among them
      are resized where the checkpoint's have other grids, see
      `finetune.resize`.
    resize_method: how, see `finetune.resize.METHODS`.
    inflate: how linear maps of patches become those of tubelets, where the
      model's are longer, see `finetune.inflate`; "" = not at all.

  Returns:
    Nested dicts like `target_params`, loaded arrays in the dtype of the
    target, and what was done.

  Raises:
    UserError: a pattern matches nothing; or lists of what is missing, extra,
      of another shape.
  """
  target, source = trees.flatten(target_params), trees.flatten(source_params)
  is_new = trees.match(new, list(target), what="parameters of the model")
  is_dropped = trees.match(
    dropped, list(source), what="parameters of the checkpoint"
  )
  if only:
    used = trees.match(only, list(source), what="parameters of the checkpoint")
    is_dropped = {n: is_dropped[n] or not used[n] for n in source}
  names = _renamed(rename, [n for n in source if not is_dropped[n]])

  missing = [n for n in target if n not in names and not is_new[n]]
  extra = [s for n, s in names.items() if n not in target]
  loaded = {n: names[n] for n in target if n in names and not is_new[n]}
  arrays = {n: source[s] for n, s in loaded.items()}
  if resize_method not in resize_lib.METHODS:  # Also where nothing is resized.
    raise errors.unknown(
      "init.resize_method", resize_method, resize_lib.METHODS
    )
  changed = _resize(arrays, target, resize, resize_method)
  changed |= _inflate(arrays, target, inflate) if inflate else {}
  _check(target, arrays, missing, extra)
  flat = {
    n: _cast(arrays[n], leaf) if n in arrays else leaf
    for n, leaf in target.items()
  }
  return trees.unflatten(flat), LoadReport(
    loaded=loaded,
    new=tuple(n for n in target if is_new[n]),
    replaced=tuple(names[n] for n in target if is_new[n] and n in names),
    dropped=tuple(n for n in source if is_dropped[n]),
    cast=tuple(
      n for n, s in loaded.items() if source[s].dtype != target[n].dtype
    ),
    changed=changed,
  )


def _renamed(rename: Renames, names: list[str]) -> dict[str, str]:
  """Maps names in the model to names in the checkpoint."""
  pairs = list(rename.items() if isinstance(rename, Mapping) else rename)
  for pattern, _ in pairs:
    trees.match([pattern], names, what="parameters of the checkpoint")
  rules = [(trees.compile_pattern(p), text) for p, text in pairs]
  result: dict[str, str] = {}
  for name in names:
    renamed = _apply(rules, name)
    if renamed in result:
      raise errors.UserError(
        f"init.rename gives {result[renamed]!r} and {name!r} of the "
        f"checkpoint the same name {renamed!r}."
      )
    result[renamed] = name
  return result


def _apply(rules, name):
  for pattern, text in rules:
    found = pattern.fullmatch(name)
    if found:
      try:
        return found.expand(text)
      except (re.error, IndexError) as e:
        raise errors.UserError(
          f"init.rename: {text!r} is no replacement for "
          f"{pattern.pattern!r}: {e}."
        ) from e
  return name


def _resize(arrays, target, entries, method):
  """Replaces tables of positions of other grids; says what was done."""
  changed = {}
  tables = [n for n in target if resize_lib.is_table(n)]
  for entry in entries:
    pattern, *given = resize_lib.parse(entry)
    matched = trees.match([pattern], tables, what="tables of positions")
    for name in (n for n in tables if matched[n] and n in arrays):
      shape, wanted = arrays[name].shape, target[name].shape
      if shape == wanted or shape[1:] != wanted[1:] or name in changed:
        continue  # Fits, or `_check` tells that its width does not.
      old, new = resize_lib.grids(name, shape[0], wanted[0], *given)
      table = np.asarray(arrays[name])
      arrays[name] = resize_lib.resize(table, old, new, method)
      changed[name] = (
        f"resized {resize_lib.describe(old)} -> {resize_lib.describe(new)}"
      )
  return changed


def _inflate(arrays, target, kind):
  """Replaces what fits once repeated over time; says what was done."""
  if kind not in inflate_lib.KINDS:
    raise errors.unknown("init.inflate", kind, inflate_lib.KINDS)
  changed = {}
  for name, array in arrays.items():
    count = inflate_lib.copies(name, array.shape, target[name].shape)
    if count:
      arrays[name] = inflate_lib.inflate(name, np.asarray(array), count, kind)
      changed[name] = f"inflated {count}-fold over time ({kind})"
  if not changed:
    raise errors.UserError(
      f"init.inflate={kind!r}, but no kernel of patches and no table of "
      "positions is longer in the model than in the checkpoint."
    )
  return changed


def _check(target, arrays, missing, extra):
  shapes = [
    f"{n}: {_describe(target[n])} in the model, {_describe(array)} in the "
    f"checkpoint{_hint(n, array, target[n])}"
    for n, array in arrays.items()
    if tuple(target[n].shape) != tuple(array.shape)
    or not _castable(array.dtype, target[n].dtype)
  ]
  lines = []
  for title, rows in (
    (
      "only in the model (initialise them: init.new)",
      [n + errors.nearest(n, extra) for n in missing[:LIMIT]] + missing[LIMIT:],
    ),
    ("only in the checkpoint (leave them: init.dropped)", extra),
    ("other shape or kind of number", shapes),
  ):
    if rows:
      lines.append(f"  {title}: {len(rows)}")
      lines += [f"    {row}" for row in rows[:LIMIT]]
      if len(rows) > LIMIT:
        lines.append(f"    ... and {len(rows) - LIMIT} more")
  if lines:
    raise errors.UserError(
      "The checkpoint does not fit the model. Say what is meant with "
      "init.rename, init.new and init.dropped:\n" + "\n".join(lines)
    )


def _hint(name, array, like):
  if not resize_lib.is_table(name) or resize_lib.is_text(name):
    return ""
  resizable = array.ndim == 2 and array.shape[1:] == like.shape[1:]
  other = resizable and array.shape[0] != like.shape[0]
  return " (resize it: init.resize)" if other else ""


def _castable(a, b):
  return a == b or (
    jnp.issubdtype(a, jnp.floating) and jnp.issubdtype(b, jnp.floating)
  )


def _cast(array, like):
  return array if array.dtype == like.dtype else array.astype(like.dtype)


def _describe(leaf):
  return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"


def _top(name):
  return name.partition("/")[0]
