"""Parameter trees: slash names, regular-expression masks, readable diffs."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from mmjax.core import errors

Tree = Any


def flatten(tree: Tree) -> dict[str, Any]:
  """Flattens nested mappings to `{"a/b/c": leaf}`, in the order of the tree.

  Other pytree nodes on the way (dataclasses, lists) give their field or index.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {name(path): leaf for path, leaf in leaves}


def name(path: Sequence[Any]) -> str:
  """Formats a jax key path as `a/b/c`."""
  parts = []
  for key in path:
    for attribute in ("key", "name", "idx"):
      if hasattr(key, attribute):
        parts.append(str(getattr(key, attribute)))
        break
  return "/".join(parts)


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Inverse of `flatten` for nested dicts."""
  tree: dict[str, Any] = {}
  for path, leaf in flat.items():
    *parents, last = path.split("/")
    node = tree
    for part in parents:
      node = node.setdefault(part, {})
    node[last] = leaf
  return tree


def map_names(fn, tree: Tree) -> Tree:
  """Maps `fn(name, leaf)` over a tree."""
  return jax.tree_util.tree_map_with_path(
    lambda path, leaf: fn(name(path), leaf), tree
  )


def match(
  patterns: Sequence[str], names: Sequence[str], *, what: str = "parameters"
) -> dict[str, bool]:
  """Says for each name whether one of the patterns matches it whole.

  Raises:
    UserError: a pattern is not a regular expression, or matches no name.
  """
  compiled = [compile_pattern(p) for p in patterns]
  for pattern in compiled:
    if not any(pattern.fullmatch(n) for n in names):
      raise errors.UserError(
        f"Pattern {pattern.pattern!r} matches none of the {len(names)} "
        f"{what}.{errors.nearest(pattern.pattern, names)} First names: "
        f"{list(names)[:5]}. Patterns are regular expressions for the whole "
        "name, e.g. 'encoders_text/.*'."
      )
  return {n: any(p.fullmatch(n) for p in compiled) for n in names}


def compile_pattern(pattern: str) -> re.Pattern[str]:
  try:
    return re.compile(pattern)
  except re.error as e:
    raise errors.UserError(
      f"Not a regular expression: {pattern!r} ({e})."
    ) from e


def split(
  tree: Mapping[str, Any], selected: Mapping[str, bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits nested dicts in two by name; empty parents are left out."""
  flat = flatten(tree)
  return (
    unflatten({n: v for n, v in flat.items() if selected[n]}),
    unflatten({n: v for n, v in flat.items() if not selected[n]}),
  )


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
  """Joins nested dicts with disjoint leaves: the inverse of `split`."""
  flat: dict[str, Any] = {}
  for tree in trees:
    for path, leaf in flatten(tree).items():
      if path in flat:
        raise ValueError(f"Two trees have the leaf {path!r}.")
      flat[path] = leaf
  return unflatten(flat)


def diff(expected: Tree, got: Tree, *, limit: int = 20) -> str:
  """Lists what is missing, extra, or of another shape; "" if nothing."""
  want, have = flatten(expected), flatten(got)
  missing = [n for n in want if n not in have]
  extra = [n for n in have if n not in want]
  shapes = [
    f"{n}: expected {tuple(want[n].shape)}, got {tuple(have[n].shape)}"
    for n in want
    if n in have and tuple(want[n].shape) != tuple(have[n].shape)
  ]
  lines = []
  for title, rows in (
    ("missing", missing),
    ("extra", extra),
    ("other shape", shapes),
  ):
    if rows:
      lines.append(f"  {title} ({len(rows)}):")
      lines += [f"    {row}" for row in rows[:limit]]
      if len(rows) > limit:
        lines.append(f"    ... and {len(rows) - limit} more")
  return "\n".join(lines)


def num_params(tree: Tree) -> int:
  """Counts the numbers in a tree of arrays or shapes."""
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def num_bytes(tree: Tree) -> int:
  """Bytes of a tree of arrays or shapes."""
  return sum(
    int(np.prod(x.shape)) * np.dtype(x.dtype).itemsize
    for x in jax.tree.leaves(tree)
  )
