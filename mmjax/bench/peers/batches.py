"""The one batch of a work: random, the same for every peer."""

import numpy as np
from jaxtyping import Float, Int

from mmjax.bench.candidate import Work

TEXT_RATE = 0.15  # Of the tokens, hidden (Devlin et al. 2019).
PATCH_RATE = 0.4  # Of the patches, where the work hides none by dropping them.
IGNORED = -100  # The label of what is not predicted.

Arrays = dict[str, np.ndarray]


def classification(work: Work) -> Arrays:
  """Pictures, and a class of each."""
  rng = np.random.default_rng(1)
  labels = rng.integers(0, work.num_classes, work.batch_size)
  return {"image": _pixels(work, rng), "label": labels}


def pairs(work: Work) -> Arrays:
  """Pictures, and a text of each without padding."""
  rng = np.random.default_rng(1)
  return {"image": _pixels(work, rng), "text": _tokens(work, rng)}


def masked_pairs(work: Work) -> Arrays:
  """Pairs, and what is hidden of them: the same number in each example."""
  rng = np.random.default_rng(1)
  text = _tokens(work, rng)
  b, t, n = work.batch_size, work.text_tokens, work.patches
  hidden_text = _some(rng, b, t, round(t * TEXT_RATE))
  hidden_patches = _some(
    rng, b, n, round(n * (work.hidden_ratio or PATCH_RATE))
  )
  codes = rng.integers(0, max(work.num_codes, 1), (b, n))
  return {
    "image": _pixels(work, rng),
    "text": text,
    "text_masked": np.where(hidden_text, _tokens(work, rng), text),
    "text_labels": np.where(hidden_text, text, IGNORED),
    "image_hidden": hidden_patches,
    "image_labels": np.where(hidden_patches, codes, IGNORED),
    "match": np.ones(b, np.int64),  # All are pairs: no loss leaves any out.
  }


def _pixels(work: Work, rng) -> Float[np.ndarray, "b h w 3"]:
  size = work.image_size
  shape = (work.batch_size, size, size, 3)
  return rng.uniform(-1, 1, shape).astype(np.float32)


def _tokens(work: Work, rng) -> Int[np.ndarray, "b t"]:
  shape = (work.batch_size, work.text_tokens)
  # Some libraries give the first few ids a meaning.
  return rng.integers(min(8, work.vocab_size - 1), work.vocab_size, shape)


def _some(rng, b: int, n: int, count: int) -> np.ndarray:
  """True at `count` of `n` random places of each of `b` rows."""
  order = np.argsort(rng.random((b, n)), axis=1)
  return np.argsort(order, axis=1) < count
