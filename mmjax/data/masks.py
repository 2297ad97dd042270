"""What is hidden from the model: pure functions of a random generator.

Each hides a number of positions that is known beforehand, so that all examples
of a batch have the same shapes. Positions come sorted and distinct.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mmjax.core import errors

# BEiT's smallest block: 16 of 14 x 14 patches.
BLOCK_SHARE = 16 / 196
MIN_ASPECT = 0.3  # A block is at most 1 / 0.3 times as wide as high.


def random_mask(
  rng: np.random.Generator, grid: tuple[int, int], count: int
) -> Int[np.ndarray, " k"]:
  """Draws `count` of the patches, each set equally likely.

  Source: He et al. 2022 (arXiv:2111.06377), section 3, "masking".
  """
  order = rng.permutation(grid[0] * grid[1])[:count]
  return np.sort(order).astype(np.int32)


def blockwise_mask(
  rng: np.random.Generator, grid: tuple[int, int], count: int
) -> Int[np.ndarray, " k"]:
  """Draws rectangles until `count` patches are covered, then trims.

  Source: Bao et al. 2022 (arXiv:2106.08254), algorithm 1. There, a mask may
  overshoot; here the surplus of the last block is given back at random, since
  all examples hide the same number. The smallest block is scaled to the grid.

  Returns:
    Row-major indices into the grid.
  """
  height, width = grid
  hidden = np.zeros(grid, bool)
  min_size = max(1.0, BLOCK_SHARE * height * width)
  covered = 0
  while covered < count:
    u = rng.random(4).tolist()
    size = min_size + u[0] * max(0.0, count - covered - min_size)
    aspect = MIN_ASPECT ** (2 * u[1] - 1)  # From 0.3 to 1 / 0.3, in logs.
    h = min(height, max(1, round(math.sqrt(size * aspect))))
    w = min(width, max(1, round(math.sqrt(size / aspect))))
    top, left = int(u[2] * (height - h + 1)), int(u[3] * (width - w + 1))
    block = hidden[top : top + h, left : left + w]
    fresh = block.size - int(np.count_nonzero(block))
    surplus = covered + fresh - count
    if surplus > 0:
      rows, columns = np.nonzero(~block)
      kept = rng.permutation(fresh)[: fresh - surplus]
      block[rows[kept], columns[kept]] = True
      break
    block[:] = True
    covered += fresh
  return np.flatnonzero(hidden).astype(np.int32)


STRATEGIES = {"random": random_mask, "blockwise": blockwise_mask}


def check_count(grid: tuple[int, ...], rate: float, count: int) -> None:
  """Checks that `count` tokens of a grid can be hidden.

  Raises:
    UserError: none would be hidden, or none would stay.
  """
  if min(grid) < 1 or not 0 < count < math.prod(grid):
    raise errors.UserError(
      f"rate={rate} of a grid {tuple(grid)} hides {count} of its "
      f"{math.prod(grid)} tokens; at least one has to be hidden and one to "
      "stay."
    )


@dataclass(frozen=True)
class MaskedText:
  """A corrupted copy of token ids and where the hidden ones are."""

  tokens: Int[np.ndarray, " t"]  # With mask tokens and random tokens.
  hidden: Int[np.ndarray, " k"]  # Positions, ascending; unused slots are 0.
  hidden_mask: Bool[np.ndarray, " k"]  # True = a real position.


def max_hidden(rate: float, max_tokens: int) -> int:
  """Returns the number of slots for hidden tokens; at least 1."""
  return max(1, math.ceil(rate * max_tokens))


def bert_mask(
  rng: np.random.Generator,
  tokens: Int[np.ndarray, " t"],
  *,
  rate: float,
  slots: int,
  mask_id: int,
  num_special: int,
  vocab_size: int,
) -> MaskedText:
  """Hides tokens: 80 % become `mask_id`, 10 % a random one, 10 % stay.

  The number is `rate` of the content tokens, rounded, at least 1 (if there is
  any) and at most `slots`. Ids below `num_special` are never hidden and never
  drawn as replacements.

  Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1, task 1.
  """
  candidates = (tokens >= num_special).nonzero()[0].tolist()
  length = len(candidates)
  count = min(max(1, round(rate * length)), slots, length)
  # One draw for all, then plain Python: for so few numbers, calls into numpy
  # are what would cost time.
  draws = rng.random(length + 2 * count).tolist()
  order = sorted(range(length), key=draws.__getitem__)
  chosen = [candidates[i] for i in sorted(order[:count])]
  corrupted = tokens.copy()
  for i, position in enumerate(chosen):
    kind, where = draws[length + i], draws[length + count + i]
    if kind < 0.8:
      corrupted[position] = mask_id
    elif kind < 0.9:
      corrupted[position] = num_special + int(
        where * (vocab_size - num_special)
      )
  hidden = np.zeros(slots, np.int32)
  hidden[:count] = chosen
  return MaskedText(corrupted, hidden, np.arange(slots) < count)
