"""Scores of texts that a decoder says, against those of people."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.interfaces import Artifact, Generate, Predict
from mmjax.evaluators import samples, texts
from mmjax.evaluators.scores import bleu, cider, meteor, rouge, words

Words = Sequence[str]


def _exact_match(candidate: Words, references: Sequence[Words]) -> float:
  return float(any(list(candidate) == list(own) for own in references))


def _mean(score: Callable[[Words, Sequence[Words]], float]):
  """Makes the score of a set from that of a text."""

  def of_all(candidates, references):
    pairs = zip(candidates, references, strict=True)
    return float(np.mean([score(said, own) for said, own in pairs]))

  return of_all


METRICS: dict[
  str, Callable[[Sequence[Words], Sequence[Sequence[Words]]], float]
] = {
  "bleu4": bleu.bleu4,
  "cider_d": lambda said, own: float(np.mean(cider.cider_d(said, own))),
  "exact_match": _mean(_exact_match),
  "meteor": _mean(meteor.meteor),
  "rouge_l": _mean(rouge.rouge_l),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Captioning:
  """Agreement of generated texts with references, by several scores.

  Each is explained in its file under `scores/`: `bleu4`, `rouge_l`, `meteor`
  (equal words only) and `exact_match` are 0..1, `cider_d` 0..10. All compare
  words in lower case without punctuation. `num_words` is the mean length of
  what was said, `distinct` the number of different texts over that of all: a
  decoder that ignores what it looks at says the same of everything.

  An example may have several references: in one field of the source with "|"
  between them, or, as in COCO, one in each of the examples that are alike in
  `group`; then one text is said for each group.

    c.evaluators = dict(
      captions=dict(
        name="captioning",
        data=dict(split="test"),
        generation=dict(strategy="beam", beam_size=4, max_tokens=16),
      )
    )

  Raises:
    UserError: an unknown metric, or one whose library is not installed.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  generate: Generate
  text: str = "text"  # Field of the references.
  group: str = ""  # Text field of the source: what the example is about.
  metrics: tuple[str, ...] = tuple(sorted(METRICS))
  num_shown: int = 8  # Examples in the report.

  def __post_init__(self):
    for name in self.metrics:
      if name not in METRICS:
        raise errors.unknown("metric of captions", name, METRICS)
    if "bleu4" in self.metrics:
      bleu.check_installed()

  def reads(self):
    group = [self.group] if self.group else []
    return {"batches": (self.text, *group)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    del predict
    said: list[str] = []
    references: list[list[str]] = []
    grouped = self._grouped()
    batches = self.batches()
    if self.group:
      batches = samples.firsts(batches, self.group)
    for batch in batches:
      real = np.flatnonzero(batch["example_mask"])
      out, own = self.generate(params, batch), self._references(batch)
      for i in real:
        said.append(out[i])
        references.append(grouped[batch[self.group][i]] if grouped else own[i])
    candidates = [words.words(text) for text in said]
    right = [[words.words(text) for text in own] for own in references]
    for name in self.metrics:
      yield name, METRICS[name](candidates, right)
    yield "num_words", float(np.mean([len(own) for own in candidates]))
    yield "distinct", len({tuple(own) for own in candidates}) / len(said)

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    del predict
    batch, count = samples.spread(self.batches(), self.num_shown)
    said = self.generate(params, batch)[:count]
    own = self._references(batch)[:count]
    rows = [[a, b[0]] for a, b in zip(said, own, strict=True)]
    kind, data = samples.described(
      batch,
      columns=["said", "right"],
      rows=rows,
      captions=[f"{a} (right: {b})" for a, b in rows],
    )
    yield Artifact(
      "captions",
      kind,
      "Captions",
      data,
      "Held-out examples, what the model says of them, and what people said.",
    )

  def _references(self, batch):
    return texts.of_field(batch, self.text, self.tokenizer)

  def _grouped(self) -> dict[Any, list[str]]:
    """The references of all examples of each group."""
    found: dict[Any, list[str]] = {}
    if not self.group:
      return found
    for batch in self.batches():
      own = self._references(batch)
      for i in np.flatnonzero(batch["example_mask"]):
        found.setdefault(batch[self.group][i], []).extend(own[i])
    return found
