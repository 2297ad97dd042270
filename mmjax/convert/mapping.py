"""Rules: which tensor is which parameter, and whether all are covered.

A rule names parameters of ours and tensors of theirs, and how one becomes the
other; the same rule serves both ways. Names may have `{i}`, the number of a
layer. Every parameter and every tensor has to be named by exactly one rule,
what is left out too, with the reason: nothing is dropped or invented in
silence. `tables` is the language in which families write them.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.convert import tensors
from mmjax.convert.transforms import Same, Transform
from mmjax.core import errors

PARAMETER_DTYPES = ("F32", "F16", "BF16")
MOST_LISTED = 20  # Names of a kind in an error.


@dataclasses.dataclass(frozen=True)
class Rule:
  """Parameters <-> tensors."""

  ours: tuple[str, ...]
  theirs: tuple[str, ...]
  how: Any  # A `Transform`, or what makes one of their config.
  index: int | None = None  # Of the layer.

  @property
  def our_names(self) -> tuple[str, ...]:
    return tuple(_filled(name, self.index) for name in self.ours)

  @property
  def their_names(self) -> tuple[str, ...]:
    return tuple(_filled(name, self.index) for name in self.theirs)


@dataclasses.dataclass(frozen=True)
class Copy:
  """A tensor of theirs that must equal another, if it is there."""

  theirs: str
  of: str


@dataclasses.dataclass(frozen=True)
class Ignored:
  """Tensors of theirs that are left out, by a regular expression."""

  pattern: str
  reason: str


@dataclasses.dataclass(frozen=True)
class Refused:
  """Tensors of theirs that models here have no place for, and what to do."""

  pattern: str
  reason: str


AnyRule = Rule | Copy | Ignored | Refused


def rule(
  ours: str | Sequence[str],
  theirs: str | Sequence[str],
  how: Transform | Callable[[Mapping[str, Any]], Transform] | None = None,
) -> Rule:
  """A rule of one name or several on either side; by default the same."""
  return Rule(_names(ours), _names(theirs), how or Same())


def layers(count: int, rules: Iterable[Rule]) -> list[Rule]:
  """Each rule once for each layer, for `{i}` in its names."""
  rules = list(rules)
  return [dataclasses.replace(r, index=i) for i in range(count) for r in rules]


def placed(item: AnyRule, prefix: str, config: Mapping[str, Any]) -> AnyRule:
  """A rule with the prefix for `{p}`, and its transform made of the config."""
  if isinstance(item, Copy):
    return Copy(*(n.replace("{p}", prefix) for n in (item.theirs, item.of)))
  if isinstance(item, (Ignored, Refused)):
    pattern = item.pattern.replace("{p}", re.escape(prefix))
    return dataclasses.replace(item, pattern=pattern)
  names = tuple(n.replace("{p}", prefix) for n in item.theirs)
  how = item.how(config) if callable(item.how) else item.how
  return dataclasses.replace(item, theirs=names, how=how)


@dataclasses.dataclass(frozen=True)
class Row:
  """A line of the coverage table."""

  theirs: str
  their_shape: str
  ours: str
  our_shape: str
  how: str


class Coverage:
  """Which rule covers which tensor and parameter.

  Args:
    rules: of the family.
    theirs: what the files have.
    ours: shapes of the model's parameters, by name.

  Raises:
    UserError: a tensor or parameter that no rule names, or that two do, or
      one that a rule names and that is not there; all of them at once.
  """

  def __init__(
    self,
    rules: Iterable[AnyRule],
    theirs: Mapping[str, tensors.Spec],
    ours: Mapping[str, tuple[int, ...]],
  ):
    rules = list(rules)
    self._theirs, self._ours = theirs, ours
    self.rules = [r for r in rules if isinstance(r, Rule)]
    self.copies = [
      r for r in rules if isinstance(r, Copy) and r.theirs in theirs
    ]
    self._ignoring = [r for r in rules if isinstance(r, Ignored)]
    named = [n for r in self.rules for n in r.their_names]
    copied = [r.theirs for r in self.copies]
    self.ignored = {
      name: found.reason
      for name in theirs
      if name not in named and name not in copied
      for found in [self._ignores(name)]
      if found
    }
    known = {*named, *copied, *self.ignored}
    targets = [n for r in self.rules for n in r.our_names]
    _raise_if(
      {
        "tensors that are missing": [n for n in named if n not in theirs],
        "tensors that no rule names": [n for n in theirs if n not in known],
        "tensors of numbers that are no weights": [
          f"{n} ({theirs[n].dtype})"
          for n in named
          if n in theirs and theirs[n].dtype not in PARAMETER_DTYPES
        ],
        "parameters that no rule names": [
          n for n in ours if n not in set(targets)
        ],
        "parameters that the model lacks": [
          n for n in targets if n not in ours
        ],
        "names in two rules": _twice(named) + _twice(targets),
      }
    )

  def arrays(
    self, read: Callable[[str], np.ndarray]
  ) -> Iterator[tuple[str, np.ndarray]]:
    """Our parameters, in float32, one rule at a time.

    Raises:
      UserError: a shape that does not fit, or a copy that differs.
    """
    for found in self.copies:
      if not _equal(read(found.theirs), read(found.of)):
        raise errors.UserError(
          f"{found.theirs!r} should be a copy of {found.of!r}, but differs: "
          "the model here has them tied."
        )
    for r in self.rules:
      shapes = [self._ours[n] for n in r.our_names]
      theirs = [read(n) for n in r.their_names]
      try:
        made = r.how.into([x.astype(np.float32) for x in theirs], shapes)
      except errors.UserError as e:
        raise errors.UserError(f"{_joined(r.their_names)}: {e}") from e
      for name, shape, array in zip(r.our_names, shapes, made, strict=True):
        if array.shape != shape:
          raise errors.UserError(
            f"{_joined(r.their_names)} makes {name} of shape {array.shape}, "
            f"the model has {shape}. Does the config belong to these weights?"
          )
        yield name, np.asarray(array, order="C")  # May have no axes.

  def table(self) -> list[Row]:
    """A line for each rule, those of layers together, then what is left."""
    groups: dict[Any, list[Rule]] = {}
    for r in self.rules:
      groups.setdefault((r.ours, r.theirs), []).append(r)
    rows = [self._row(group) for group in groups.values()]
    for c in self.copies:
      spec = self._theirs[c.theirs]
      rows.append(Row(c.theirs, _said(spec), "-", "", f"equals {c.of}"))
    for name, reason in self.ignored.items():
      rows.append(Row(name, _said(self._theirs[name]), "-", "", reason))
    return rows

  def _row(self, group):
    first, count = group[0], len(group)
    times = f" x{count}" if first.index is not None else ""
    specs = [_said(self._theirs[n]) for n in first.their_names]
    shapes = [str(self._ours[n]) for n in first.our_names]
    return Row(
      (_braced(first.theirs) or "-") + (times if first.theirs else ""),
      _joined(dict.fromkeys(specs)),
      _braced([_plain_index(n) for n in first.ours]) + times,
      _joined(dict.fromkeys(shapes)),
      type(first.how).__name__.lower(),
    )

  def _ignores(self, name):
    for r in self._ignoring:
      if re.fullmatch(r.pattern, name):
        return r
    return None


def back(
  rules: Iterable[AnyRule], ours: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
  """Their tensors of our parameters, in float32, one rule at a time.

  Raises:
    UserError: the parameters are not those that the rules name, or hold what
      theirs have no place for.
  """
  rules = [r for r in rules if isinstance(r, Rule)]
  targets = {n for r in rules for n in r.our_names}
  _raise_if(
    {
      "parameters that have no place there": [
        n for n in ours if n not in targets
      ],
      "parameters that are missing": [n for n in targets if n not in ours],
    }
  )
  for r in rules:
    try:
      made = r.how.back([np.asarray(ours[n]) for n in r.our_names])
    except errors.UserError as e:
      raise errors.UserError(f"{_joined(r.our_names)}: {e}") from e
    yield from zip(r.their_names, made, strict=True)


def _names(names):
  return (names,) if isinstance(names, str) else tuple(names)


def _filled(name, index):
  return name if index is None else name.format(i=index)


def _plain_index(name):
  return re.sub(r"\{i:[^}]*\}", "{i}", name)


def _joined(names):
  return ", ".join(names)


def _braced(names):
  """E.g. `attention/{query,key,value}/kernel`."""
  if len(names) < 2:
    return "".join(names)
  start = os.path.commonprefix(names)
  rest = [n[len(start) :] for n in names]
  end = os.path.commonprefix([n[::-1] for n in rest])[::-1]
  middle = ",".join(n[: len(n) - len(end)] for n in rest)
  return f"{start}{{{middle}}}{end}"


def _said(spec):
  return f"{spec.dtype} {spec.shape}"


def _twice(names):
  return sorted({n for n in names if names.count(n) > 1})


def _equal(a, b):
  """Bit for bit; NaN equals itself."""
  return (
    a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
  )


def _raise_if(problems):
  lines = []
  for what, names in problems.items():
    if names:
      lines.append(f"  {what} ({len(names)}):")
      lines += [f"    {name}" for name in names[:MOST_LISTED]]
      if len(names) > MOST_LISTED:
        lines.append(f"    ... and {len(names) - MOST_LISTED} more")
  if lines:
    raise errors.UserError("\n".join(["The weights do not fit:", *lines]))
