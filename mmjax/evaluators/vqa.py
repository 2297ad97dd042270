"""Accuracy of answers to questions, picked from a list or said in words."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mmjax.core.interfaces import Artifact, Generate, Predict
from mmjax.evaluators import samples, texts
from mmjax.evaluators.scores import answers as answers_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vqa:
  """Accuracy of answers that a head picks from the list of classes.

  An answer is worth its share of the label, 1 or 0 if that is one class; or,
  with `answers`, what `scores/answers.py` says of people's answers: VQA's
  official score.

    c.evaluators = dict(
      vqa=dict(name="vqa", data=dict(split="test"), by="question_type")
    )
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  class_names: tuple[str, ...]
  question: str = "text"  # Field of the question, whose tokens are pooled.
  given: tuple[str, ...] = ("image",)  # Modalities that it asks about.
  head: str = "answer"
  label: str = "label"  # Field with the class index, or shares of classes.
  answers: str = ""  # Text field of the source, "yes|yes|no"; "" = the label.
  by: str = ""  # Text field of the source, to tell accuracies apart by.
  num_shown: int = 8  # Questions in the report.

  def reads(self):
    right = self.answers or self.label
    asked = (self.question, *self.given, right)
    return {"batches": (*asked, *([self.by] if self.by else []))}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    rows = (
      (self._score(batch, picked), batch)
      for batch in self.batches()
      for picked in [predict(params, self._pick, batch)]
    )
    yield from _accuracies(rows, self.by)

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    batch, count = samples.spread(self.batches(), self.num_shown)
    picked = predict(params, self._pick, batch)
    yield from _shown(
      self,
      batch,
      said=[self.class_names[i] for i in picked][:count],
      scores=self._score(batch, picked),
      right=self._right(batch),
    )

  def _score(self, batch, picked):
    if self.answers:
      said = [self.class_names[i] for i in picked]
      return _official(said, self._right(batch))
    label = batch[self.label]
    if label.ndim == 1:
      return (picked == label).astype(np.float64)
    return np.take_along_axis(label, picked[:, None], axis=1)[:, 0]

  def _right(self, batch):
    if self.answers:
      return texts.of_field(batch, self.answers, self.tokenizer)
    label = batch[self.label]
    best = label if label.ndim == 1 else label.argmax(axis=1)
    return [[self.class_names[i]] for i in best]

  def _pick(self, apply, batch):
    del batch
    pooled = apply("pool", self.question, self.given)
    return apply("head", self.head, pooled).argmax(axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class VqaGenerated:
  """Accuracy of answers that a decoder says.

  Said and right answers are compared as `scores/answers.py` does it. With
  `choices` the likeliest of these is said, else whatever comes.

    c.evaluators = dict(
      vqa=dict(
        name="vqa_generated",
        data=dict(split="test"),
        generation=dict(strategy="greedy", max_tokens=8),
      )
    )
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  generate: Generate
  question: str = "text"  # Field of the question.
  answers: str = "answer"  # Field; of the source's own, "yes|yes|no".
  choices: tuple[str, ...] = ()
  by: str = ""  # Text field of the source, to tell accuracies apart by.
  num_shown: int = 8  # Questions in the report.

  def reads(self):
    asked = (self.question, self.answers)
    return {"batches": (*asked, *([self.by] if self.by else []))}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    del predict
    rows = (
      (_official(self._say(params, batch), self._right(batch)), batch)
      for batch in self.batches()
    )
    yield from _accuracies(rows, self.by)

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    del predict
    batch, count = samples.spread(self.batches(), self.num_shown)
    said, right = self._say(params, batch), self._right(batch)
    yield from _shown(
      self,
      batch,
      said=said[:count],
      scores=_official(said, right),
      right=right,
    )

  def _say(self, params, batch):
    if self.choices:
      return self.generate.choose(params, batch, self.choices)
    return self.generate(params, batch)

  def _right(self, batch):
    return texts.of_field(batch, self.answers, self.tokenizer)


def _official(said: Sequence[str], right: Sequence[Sequence[str]]):
  pairs = zip(said, right, strict=True)
  return np.array([answers_lib.score(text, own) for text, own in pairs])


def _accuracies(
  rows: Iterator[tuple[np.ndarray, Mapping[str, np.ndarray]]], by: str
) -> Iterator[tuple[str, float]]:
  """Means over real examples, of all and of each kind."""
  scores: list[np.ndarray] = []
  kinds: list[np.ndarray] = []
  for values, batch in rows:
    real = batch["example_mask"]
    scores.append(values[real])
    if by:
      kinds.append(batch[by][real].astype(str))
  every = np.concatenate(scores)
  yield "accuracy", float(every.mean())
  if by:
    kind = np.concatenate(kinds)
    for name in np.unique(kind):
      yield f"accuracy/{name}", float(every[kind == name].mean())


def _shown(evaluator, batch, *, said, scores, right):
  """Questions with what was said and what is right."""
  questions = texts.one_of_field(batch, evaluator.question, evaluator.tokenizer)
  rows = [
    [question, answer, "✓" if score >= 0.5 else f"✗ {own[0]}"]
    for question, answer, score, own in zip(
      questions, said, scores, right, strict=False
    )
  ]
  kind, data = samples.described(
    batch,
    columns=["question", "said", "right"],
    rows=rows,
    captions=[" ".join(row) for row in rows],
  )
  yield Artifact(
    "answers",
    kind,
    "Answers",
    data,
    "Held-out questions with the model's answers; after a cross, the right "
    "one.",
  )
