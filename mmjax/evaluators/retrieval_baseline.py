"""Retrieval without the model: what plain statistics of the data reach."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float

from mmjax.core import errors
from mmjax.core.interfaces import Predict
from mmjax.evaluators import ranking
from mmjax.evaluators.nearest_picture import thumbnails

# Penalty of the ridge regression, relative to the mean variance of a pixel.
RIDGE = 10.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalBaseline:
  """R@k both ways of a baseline fitted on `train_data`; no model is asked.

  "mean_frame": ridge regression from a thumbnail of the mean frame (of a
  picture: of itself) to the words' weights, then the cosine. "duration": how
  far the seconds of a recording are from what a line through the training
  set expects of a text of that length.

  Raises:
    UserError: unknown kind.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  train_batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  kind: str = "mean_frame"
  modality: str = "video"
  text: str = "text"  # Field.
  pixels: int = 16  # Side of the thumbnails.
  at: tuple[int, ...] = (1, 5, 10)

  def __post_init__(self):
    if self.kind not in KINDS:
      raise errors.unknown("baseline", self.kind, KINDS)

  def reads(self):
    seen = {"duration": f"{self.modality}_mask"}.get(self.kind, self.modality)
    return {
      "batches": (seen, self.text),
      "train_batches": (seen, self.text),
    }

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    del predict, params
    describe, fit = KINDS[self.kind]
    train, _ = self._collect(self.train_batches, describe)
    test, tokens = self._collect(self.batches, describe)
    _, first, which = np.unique(
      tokens, axis=0, return_index=True, return_inverse=True
    )
    which, ids = which.reshape(-1), np.arange(len(first))
    a, b = fit(train, test)
    yield from ranking.both_ways(
      (self.modality, a, which), (self.text, b[first], ids), self.at
    )

  def _collect(self, batches, describe):
    sides, tokens = [], []
    for batch in batches():
      real = batch["example_mask"]
      sides.append([side[real] for side in describe(self, batch)])
      tokens.append(batch[self.text][real])
    a, b = (np.concatenate(parts) for parts in zip(*sides, strict=True))
    return (a, b), np.concatenate(tokens)


def _looks_and_words(evaluator, batch):
  pixels = batch[evaluator.modality]
  if pixels.ndim == 5:  # b f h w c
    pixels = np.round(pixels.mean(axis=1)).astype(np.uint8)
  counts = np.zeros(
    (len(pixels), evaluator.tokenizer.vocab_size), dtype=np.float64
  )
  for row, ids in zip(counts, batch[evaluator.text], strict=True):
    np.add.at(row, ids[evaluator.tokenizer.content[ids]], 1)
  return thumbnails(pixels, evaluator.pixels), counts


def match_looks(train, test):
  """Words that ridge regression expects of thumbnails; and the real ones."""
  (x, y), (queries, words) = train, test
  rarity = np.log((1 + len(y)) / (1 + (y > 0).sum(axis=0)))  # v
  y, words = unit(y * rarity), unit(words * rarity)
  mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
  x, queries = x - mean_x, queries - mean_x
  # As many equations as examples, fewer than pixels: the dual form.
  kernel = x @ x.T + RIDGE * len(x) * x.var() * np.eye(len(x))
  expected = queries @ (x.T @ np.linalg.solve(kernel, y - mean_y)) + mean_y
  return unit(expected), words


def _seconds_and_letters(evaluator, batch):
  samples = batch[f"{evaluator.modality}_mask"].sum(axis=1)
  texts = [evaluator.tokenizer.decode(ids) for ids in batch[evaluator.text]]
  return samples.astype(np.float64), np.array([len(t) for t in texts], float)


def match_durations(train, test):
  """Vectors whose products order pairs by |duration - expected duration|."""
  (lengths, letters), (durations, texts) = train, test
  unit_of_time = lengths.mean()
  slope, start = np.polyfit(letters, lengths / unit_of_time, 1)
  expected, durations = slope * texts + start, durations / unit_of_time
  # -(d - e)^2 = 2 d e - e^2 - d^2; either way, the query's own square is the
  # same for all candidates.
  ones = np.ones_like(durations)
  a = np.stack([2 * durations, -ones, -(durations**2)], axis=1)
  b = np.stack([expected, expected**2, ones], axis=1)
  return a, b


def unit(
  x: Float[np.ndarray, "b d"],
) -> Float[np.ndarray, "b d"]:
  """Rows of length 1; 0 stays 0."""
  return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


# How each describes the two sides of an example, and matches them.
KINDS = {
  "duration": (_seconds_and_letters, match_durations),
  "mean_frame": (_looks_and_words, match_looks),
}
