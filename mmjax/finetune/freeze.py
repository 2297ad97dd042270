"""Which parameters are trained, and from which step on."""

from collections.abc import Sequence
from typing import Any

from mmjax.core import errors, trees


def trainable_mask(
  params: Any, trainable: Sequence[str] = (".*",), frozen: Sequence[str] = ()
) -> dict[str, bool]:
  """Says for each parameter whether it is trained.

  It is when a pattern of `trainable` matches its whole name and none of
  `frozen` does.

  Args:
    params: tree of arrays or shapes.
    trainable: regular expressions for whole names, "encoders_text/.*".
    frozen: the same; it has the last word.

  Raises:
    UserError: a pattern matches nothing, or nothing is left to train; unless
      `trainable` is empty, for a model that is only used.
  """
  names = list(trees.flatten(params))
  if not trainable:
    return dict.fromkeys(names, False)
  chosen = trees.match(trainable, names)
  excluded = trees.match(frozen, names)
  mask = {name: chosen[name] and not excluded[name] for name in names}
  if not any(mask.values()):
    raise errors.UserError(
      f"None of the {len(names)} parameters is trained: "
      f"finetune.trainable={list(trainable)} without "
      f"finetune.frozen={list(frozen)} leaves nothing. First names: "
      f"{names[:5]}."
    )
  return mask


def first_steps(
  unfreeze: Sequence[Any], trained: Sequence[str]
) -> dict[str, int]:
  """How many steps are done before a parameter is trained, if any.

  Gradual unfreezing (Howard & Ruder 2018, arXiv:1801.06146, 3.3).

  Args:
    unfreeze: (steps, patterns); of two that match a name the first counts.
    trained: names of the parameters that are trained at all.

  Raises:
    UserError: an entry that is no such pair, a pattern that matches nothing,
      or nothing is left to train at the first step.
  """
  starts: dict[str, int] = {}
  for entry in unfreeze:
    steps, patterns = _entry(entry)
    for name, hit in trees.match(
      patterns, trained, what="trained parameters"
    ).items():
      if hit:
        starts.setdefault(name, steps)
  if starts and min(starts.get(name, 0) for name in trained) > 0:
    raise errors.UserError(
      f"finetune.unfreeze={tuple(unfreeze)} leaves nothing to train at the "
      "first step: let one entry have 0 steps, or leave some names out."
    )
  return {name: steps for name, steps in starts.items() if steps}


def _entry(entry: Any) -> tuple[int, tuple[str, ...]]:
  if isinstance(entry, (tuple, list)) and len(entry) == 2:
    steps, patterns = entry
    if isinstance(patterns, str):
      patterns = (patterns,)
    named = isinstance(patterns, (tuple, list)) and len(patterns) > 0
    if type(steps) is int and steps >= 0 and named:
      return steps, tuple(patterns)
  raise errors.UserError(
    f"finetune.unfreeze has {entry!r}; expected (steps, patterns), such as "
    "(100, ('encoders_image/.*',)): trained once 100 steps are done."
  )
