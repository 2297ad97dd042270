"""Retrieval between pictures and texts in the shared space."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators import ranking, samples


@dataclasses.dataclass(frozen=True)
class _Pairs:
  """All examples of a split, encoded; row i of both sides is a pair.

  Rows with the same `which` are right for each other; `first` holds the first
  row of each value of it.
  """

  pictures: Float[np.ndarray, "b s"]
  texts: Float[np.ndarray, "b s"]
  tokens: Int[np.ndarray, "b t"]
  first: Int[np.ndarray, " g"]
  which: Int[np.ndarray, " b"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval:
  """R@k of a modality to text and back: is a right one among the best k?

  Examples with equal texts count as right for each other, and a text stands
  among the candidates once. Where a picture has several texts, as in COCO,
  each in an example of its own, `group` names the field that says which
  picture it is: then a picture stands there once, all texts do, and any text
  of a picture is right. `chance_R@10` is what random ranks would reach among
  the side that stands there once.

    c.evaluators = dict(
      coco=dict(name="retrieval", data=dict(split="test"), group="image_id")
    )
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  modality: str = "image"
  text: str = "text"  # Field.
  group: str = ""  # Field of the source; "" = by equal texts.
  at: tuple[int, ...] = (1, 5, 10)
  num_shown: int = 8  # Queries in the report.
  num_results: int = 5  # Pictures for each of them.

  def reads(self):
    group = [self.group] if self.group else []
    return {"batches": (self.modality, self.text, *group)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    pairs = self._collect(predict, params)
    first, which, ids = pairs.first, pairs.which, np.arange(len(pairs.first))
    if self.group:
      yield from ranking.both_ways(
        (self.text, pairs.texts, which),
        (self.modality, pairs.pictures[first], ids),
        self.at,
      )
      return
    yield from ranking.both_ways(
      (self.modality, pairs.pictures, which),
      (self.text, pairs.texts[first], ids),
      self.at,
    )

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    if samples.looks(next(iter(self.batches())), (self.modality,)) is None:
      return
    pairs = self._collect(predict, params)
    # A picture that stands for several texts is a result once.
    gallery = pairs.first if self.group else np.arange(len(pairs.which))
    spread = np.linspace(0, len(pairs.first) - 1, self.num_shown).astype(int)
    found = []
    for query in pairs.first[spread]:
      scores = pairs.pictures[gallery] @ pairs.texts[query]
      best = np.argsort(-scores, kind="stable")[: self.num_results]
      found.append((query, gallery[best], scores[best]))
    shown = samples.take(
      self.batches(), self.modality, {int(j) for _, b, _ in found for j in b}
    )
    yield Artifact(
      "gallery",
      "gallery",
      "Text to picture",
      {"rows": [self._row(pairs, shown, *result) for result in found]},
      f"A held-out text, and the {self.num_results} of {len(gallery):,} "
      "held-out pictures that are nearest to it in the shared space.",
    )

  def _row(self, pairs, shown, query, best, scores):
    text = self.tokenizer.decode(pairs.tokens[query])
    results = [
      {
        "image": shown[int(j)],
        "caption": self.tokenizer.decode(pairs.tokens[j]),
        "score": float(score),
        "right": bool(pairs.which[j] == pairs.which[query]),
      }
      for j, score in zip(best, scores, strict=True)
    ]
    return {"query": text, "truth": text, "results": results}

  def _collect(self, predict, params):
    columns = [], [], [], []
    for batch in self.batches():
      real = batch["example_mask"]
      a, b = predict(params, self._project, batch)
      keys = batch[self.group or self.text]
      for column, values in zip(
        columns, (a, b, batch[self.text], keys), strict=True
      ):
        column.append(values[real])
    pictures, words, tokens, keys = (np.concatenate(c) for c in columns)
    if keys.dtype == object:
      keys = keys.astype(str)
    _, first, which = np.unique(
      keys, axis=0, return_index=True, return_inverse=True
    )
    return _Pairs(pictures, words, tokens, first, which.reshape(-1))

  def _project(self, apply, batch):
    del batch
    return apply("project", self.modality), apply("project", self.text)
