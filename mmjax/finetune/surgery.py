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
    return "\n".join(lines)


def load_partial(
  target_params: Any,
  source_params: Any,
  *,
  rename: Renames = (),
  new: Sequence[str] = (),
  dropped: Sequence[str] = (),
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
  names = _renamed(rename, [n for n in source if not is_dropped[n]])

  missing = [n for n in target if n not in names and not is_new[n]]
  extra = [s for n, s in names.items() if n not in target]
  loaded = {n: names[n] for n in target if n in names and not is_new[n]}
  _check(target, source, missing, extra, loaded)
  flat = {
    n: _cast(source[loaded[n]], leaf) if n in loaded else leaf
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


def _check(target, source, missing, extra, loaded):
  shapes = [
    f"{n}: {_describe(target[n])} in the model, {_describe(source[s])} in "
    "the checkpoint"
    for n, s in loaded.items()
    if tuple(target[n].shape) != tuple(source[s].shape)
    or not _castable(source[s].dtype, target[n].dtype)
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
