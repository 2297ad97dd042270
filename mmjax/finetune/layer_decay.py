"""Layers further from the output learn slower.

Sources: Clark et al. 2020 (arXiv:2003.10555), appendix A; Bao et al. 2021
(arXiv:2106.08254), appendix: layer i of L learns at decay^(L + 1 - i) of the
rate, with the stem as layer 0 and what comes after the stack as layer L + 1.
Each tower is counted by itself; what is in none (heads, the shared space)
comes after all.
"""

import re
from collections.abc import Mapping

from mmjax.core import errors

LAYER = re.compile(r"(?P<stack>.+?)/(layer_(?P<index>\d+)|layers)/")
# A tower's stacks that run before the others, and after them, by their names.
# The others run side by side.
FIRST = re.compile(r"resampler_.*|encoder")
LAST = re.compile(r"time_stack|decoder")

Factor = float | tuple[float, ...]  # A tuple has one for each stacked layer.


def factors(
  shapes: Mapping[str, tuple[int, ...]], decay: float
) -> dict[str, Factor]:
  """The factor on the learning rate of each parameter.

  Args:
    shapes: of all parameters, by name.
    decay: from one layer to the one before, in (0, 1].

  Raises:
    UserError: `decay` is outside of this, or no parameter is in a layer.
  """
  if not 0 < decay <= 1:
    raise errors.UserError(
      f"finetune.layer_decay={decay}, expected more than 0 and at most 1 (off)."
    )
  stacks = _stacks(shapes)
  if decay < 1 and not stacks:
    raise errors.UserError(
      f"finetune.layer_decay={decay}, but no parameter is in a layer. First "
      f"names: {list(shapes)[:5]}."
    )
  return {name: _factor(name, stacks, decay) for name in shapes}


def _stacks(shapes) -> dict[str, int]:
  """Number of layers of each stack."""
  stacks: dict[str, int] = {}
  for name, shape in shapes.items():
    if found := LAYER.match(name):
      stack, index = found["stack"], found["index"]
      count = shape[0] if index is None else int(index) + 1
      stacks[stack] = max(stacks.get(stack, 0), count)
  return stacks


def _factor(name, stacks, decay) -> Factor:
  tower, _, rest = name.partition("/")
  # Of stacks that run side by side, the deepest counts.
  depths = [0, 0, 0]
  for stack, count in stacks.items():
    if stack.partition("/")[0] == tower:
      depths[_turn(stack)] = max(depths[_turn(stack)], count)
  after = sum(depths) + 1
  if after == 1 or rest.startswith("pooling"):
    return 1.0
  if found := LAYER.match(name):
    stack, index = found["stack"], found["index"]
    start = sum(depths[: _turn(stack)])
    if index is not None:
      return decay ** (after - (start + int(index) + 1))
    return tuple(
      decay ** (after - (start + i + 1)) for i in range(stacks[stack])
    )
  stack, _, _ = name.partition("/norm/")
  if stack in stacks:  # It is between this stack and what comes next.
    end = sum(depths[: _turn(stack) + 1])
    return 1.0 if end + 1 == after else decay ** (after - end)
  return decay**after


def _turn(stack):
  name = stack.rpartition("/")[2]
  return 0 if FIRST.fullmatch(name) else 2 if LAST.fullmatch(name) else 1
