"""What is hidden from the model: pure functions of a random generator.

Each hides a number of positions that is known beforehand, so that all examples
of a batch have the same shapes. Positions come sorted and distinct.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from mmjax.core import errors

# BEiT's smallest block: 16 of 14 x 14 patches.
BLOCK_SHARE = 16 / 196
MIN_ASPECT = 0.3  # A block is at most 1 / 0.3 times as wide as high.
# SpanBERT's runs of words: each goes on with probability 0.8.
SPAN_STOP, MAX_SPAN = 0.2, 10


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


def check_count(
  grid: tuple[int, ...], rate: float, count: int, *, least_kept: int = 1
) -> None:
  """Checks that `count` tokens of a grid can be hidden.

  Raises:
    UserError: none would be hidden, or fewer than `least_kept` would stay.
  """
  total = math.prod(grid)
  if min(grid) < 1 or not 0 < count <= total - least_kept:
    raise errors.UserError(
      f"rate={rate} of a grid {tuple(grid)} hides {count} of its {total} "
      f"tokens; at least one has to be hidden and {least_kept} to stay."
    )


@dataclass(frozen=True)
class MaskedText:
  """A corrupted copy of token ids and where the hidden ones are."""

  tokens: Int[np.ndarray, " t"]  # With mask tokens and random tokens.
  hidden: Int[np.ndarray, " k"]  # Positions, ascending; unused slots are 0.
  hidden_mask: Bool[np.ndarray, " k"]  # True = a real position.


@dataclass(frozen=True)
class Vocabulary:
  """What masking has to know of a tokenizer."""

  mask_id: int  # What stands for a hidden token.
  # By id, False for what is no content: never hidden, never drawn.
  content: Bool[np.ndarray, " v"]
  # By id, whether a token starts a word; only to hide whole words.
  starts_word: Bool[np.ndarray, " v"] | None = None
  # By id, whether it ends one, where a vocabulary marks that instead.
  ends_word: Bool[np.ndarray, " v"] | None = None

  @functools.cached_property
  def drawn(self) -> list[int]:
    """The ids that may stand for a hidden token at random."""
    return np.flatnonzero(self.content).tolist()


def max_hidden(rate: float, max_tokens: int) -> int:
  """Returns the number of slots for hidden tokens; at least 1."""
  return max(1, math.ceil(rate * max_tokens))


def bert_mask(
  rng: np.random.Generator,
  tokens: Int[np.ndarray, " t"],
  vocabulary: Vocabulary,
  *,
  rate: float,
  slots: int,
) -> MaskedText:
  """Hides tokens: 80 % become `mask_id`, 10 % a random one, 10 % stay.

  The number is `rate` of the content tokens, rounded, at least 1 (if there is
  any) and at most `slots`.

  Source: Devlin et al. 2019 (arXiv:1810.04805), section 3.1, task 1.
  """
  candidates = vocabulary.content[tokens].nonzero()[0].tolist()
  length = len(candidates)
  count = count_hidden(rate, length, slots)
  # One draw for all, then plain Python: for so few numbers, calls into numpy
  # are what would cost time.
  draws = rng.random(length + 2 * count).tolist()
  order = sorted(range(length), key=draws.__getitem__)
  chosen = [[candidates[i]] for i in sorted(order[:count])]
  kinds, others = draws[length : length + count], draws[length + count :]
  return _corrupt(tokens, chosen, kinds, others, slots, vocabulary)


def word_mask(
  rng: np.random.Generator,
  tokens: Int[np.ndarray, " t"],
  vocabulary: Vocabulary,
  *,
  rate: float,
  slots: int,
) -> MaskedText:
  """Hides all tokens of some words; each token as in `bert_mask`.

  Words are drawn one by one; one that would go beyond the number of
  `bert_mask` is passed over, so at most so many tokens are hidden. The first
  word may go beyond it: of a short text, one word is hidden; at most its first
  `slots` tokens.

  Source: whole word masking of BERT's released code (May 2019).

  Args:
    rng: of this example.
    tokens: ids.
    vocabulary: of the ids; with `starts_word`.
    rate: share of the content tokens.
    slots: most tokens that are hidden.
  """
  found = words(tokens, vocabulary)
  count = count_hidden(rate, sum(map(len, found)), slots)
  draws = rng.random(len(found) + 2 * slots).tolist()
  chosen: list[list[int]] = []
  left = count
  for i in sorted(range(len(found)), key=draws.__getitem__):
    word = found[i] if chosen else found[i][:slots]
    if len(word) <= left or not chosen:
      chosen.append(word)
      left -= len(word)
    if left <= 0:
      break
  single = [[position] for word in sorted(chosen) for position in word]
  kinds, others = draws[len(found) :][:slots], draws[len(found) + slots :]
  return _corrupt(tokens, single, kinds, others, slots, vocabulary)


def span_mask(
  rng: np.random.Generator,
  tokens: Int[np.ndarray, " t"],
  vocabulary: Vocabulary,
  *,
  rate: float,
  slots: int,
) -> MaskedText:
  """Hides runs of whole words, as many tokens as `bert_mask`.

  The length of a run in words is geometric, at most `MAX_SPAN`; it starts at
  a word that is not hidden yet and ends before one that is. The last run is
  cut to the number of tokens. All tokens of a run become `mask_id`, or random
  ones, or stay.

  Source: SpanBERT (Joshi et al. 2020, arXiv:1907.10529), 3.1; arguments as of
  `word_mask`.
  """
  found = words(tokens, vocabulary)
  left = count_hidden(rate, sum(map(len, found)), slots)
  chosen: list[list[int]] = []
  open_ = list(range(len(found)))  # Words that are not hidden, ascending.
  draws = rng.random((left, 3)).tolist()  # At most so many runs.
  for where, u, _ in draws:
    if left <= 0:
      break
    start = stop = int(where * len(open_))
    end = min(start + _span_length(u), len(open_))
    run: list[int] = []
    # Up to a gap, where a word is hidden already.
    while stop < end and open_[stop] - open_[start] == stop - start:
      run += found[open_[stop]]
      stop += 1
    del open_[start:stop]
    chosen.append(run[:left])
    left -= len(chosen[-1])
  kinds = [kind for _, _, kind in draws]
  others = rng.random(sum(map(len, chosen))).tolist()
  order = sorted(range(len(chosen)), key=chosen.__getitem__)
  return _corrupt(
    tokens,
    [chosen[i] for i in order],
    [kinds[i] for i in order],
    others,
    slots,
    vocabulary,
  )


TEXT_STRATEGIES = {"span": span_mask, "token": bert_mask, "word": word_mask}


def words(
  tokens: Int[np.ndarray, " t"], vocabulary: Vocabulary
) -> list[list[int]]:
  """The positions of each word: runs of content that start where it says."""
  assert vocabulary.starts_word is not None
  starts = vocabulary.starts_word[tokens]
  if vocabulary.ends_word is not None:
    starts[1:] |= vocabulary.ends_word[tokens[:-1]]
  content = vocabulary.content[tokens].tolist()
  found: list[list[int]] = []
  for position, start in enumerate(starts.tolist()):
    if not content[position]:
      continue
    if start or not position or not content[position - 1]:
      found.append([])
    found[-1].append(position)
  return found


def count_hidden(rate: float, length: int, slots: int) -> int:
  """How many of `length` content tokens are hidden."""
  return min(max(1, round(rate * length)), slots, length)


def _span_length(u: float) -> int:
  """Geometric for uniform `u`, truncated: 1, 2, .., MAX_SPAN."""
  whole = 1.0 - (1.0 - SPAN_STOP) ** MAX_SPAN
  length = math.log1p(-u * whole) / math.log1p(-SPAN_STOP)
  return min(MAX_SPAN, 1 + int(length))


def _corrupt(tokens, groups, kinds, others, slots, vocabulary) -> MaskedText:
  """Replaces the tokens of each group of positions, groups ascending.

  `kinds` has a number in [0, 1) for each group, `others` one for each token.
  """
  corrupted = tokens.copy()
  content = vocabulary.drawn
  chosen: list[int] = []
  for group, kind in zip(groups, kinds, strict=False):
    for position in group:
      if kind < 0.8:
        corrupted[position] = vocabulary.mask_id
      elif kind < 0.9:
        drawn = int(others[len(chosen)] * len(content))
        corrupted[position] = content[drawn]
      chosen.append(position)
  hidden = np.zeros(slots, np.int32)
  hidden[: len(chosen)] = chosen
  return MaskedText(corrupted, hidden, np.arange(slots) < len(chosen))
