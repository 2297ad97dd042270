"""Which parameters are trained."""

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
    UserError: a pattern matches nothing, or nothing is left to train.
  """
  names = list(trees.flatten(params))
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
