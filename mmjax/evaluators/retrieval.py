"""Retrieval between pictures and texts in the shared space."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators import ranking


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """All examples of a split, encoded; row i of both sides is a pair."""

  first: Float[np.ndarray, "b s"]
  text: Float[np.ndarray, "b s"]
  tokens: Int[np.ndarray, "b t"]
  shown: np.ndarray  # What a person sees of the first modality.

  def unique_texts(self) -> tuple[np.ndarray, np.ndarray]:
    """Row of the first example of each distinct text, and each row's text."""
    _, first, which = np.unique(
      self.tokens, axis=0, return_index=True, return_inverse=True
    )
    return first, which.reshape(-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
  """R@k of a modality to text and back: is the right one among the best k?

  Examples with equal texts count as right for each other, and a text stands
  among the candidates once. `chance_R@10` is what random ranks would reach.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  modality: str = "image"
  text: str = "text"  # Field.
  at: tuple[int, ...] = (1, 5, 10)
  num_shown: int = 8  # Queries in the report.
  num_results: int = 5  # Pictures for each of them.

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    pairs = self._collect(predict, params)
    first, which = pairs.unique_texts()
    yield from ranking.both_ways(
      (self.modality, pairs.first, which),
      (self.text, pairs.text[first], np.arange(len(first))),
      self.at,
    )

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    pairs = self._collect(predict, params)
    if pairs.shown.ndim != 4:  # Waveforms or bags of patches: no pictures.
      return
    first, which = pairs.unique_texts()
    texts = [self.tokenizer.decode(row) for row in pairs.tokens]
    rows = []
    for i in np.linspace(0, len(first) - 1, self.num_shown).astype(int):
      query = first[i]
      scores = pairs.first @ pairs.text[query]
      best = np.argsort(-scores, kind="stable")[: self.num_results]
      results = [
        {
          "image": pairs.shown[j],
          "caption": texts[j],
          "score": float(scores[j]),
          "right": bool(which[j] == i),
        }
        for j in best
      ]
      rows.append(
        {"query": texts[query], "truth": texts[query], "results": results}
      )
    yield Artifact(
      "gallery",
      "gallery",
      "Text to picture",
      {"rows": rows},
      f"A held-out text, and the {self.num_results} of {len(pairs.first):,} "
      "held-out pictures that are nearest to it in the shared space.",
    )

  def _collect(self, predict, params):
    columns = [], [], [], []
    for batch in self.batches():
      real = batch["example_mask"]
      a, b = predict(params, self._project, batch)
      shown = batch[self.modality]
      if self.modality == "video":  # The frame in the middle.
        shown = shown[:, shown.shape[1] // 2]
      rows = (a, b, batch[self.text], shown)
      for column, values in zip(columns, rows, strict=True):
        column.append(values[real])
    return _Pairs(*(np.concatenate(column) for column in columns))

  def _project(self, apply, batch):
    del batch
    return apply("project", self.modality), apply("project", self.text)
