"""Classification without a head: by the texts of the classes."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmjax.core import errors
from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators import features
from mmjax.evaluators.classification import confusion
from mmjax.evaluators.scores import ranked

PLACE = "{}"  # Of the class's name in a template.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ZeroShot:
  """Which class's texts lie nearest to a picture in the shared space?

  Source: CLIP (Radford et al. 2021, arXiv:2103.00020), 3.1.2 and 3.1.4. Each
  class's name is put into each template; the texts' embeddings, of length 1,
  are averaged and brought to length 1 again. `majority` is the accuracy of
  always saying the most frequent class.

    c.evaluators = dict(
      zero_shot=dict(
        name="zero_shot",
        data=dict(split="test", label=dict(field="group")),
        templates=("{}", "a picture of {}"),
      )
    )

  Raises:
    UserError: a template without "{}", or names that are not as many as the
      classes.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  class_names: tuple[str, ...]
  modality: str = "image"
  text: str = "text"  # Field; its length is that of the classes' texts.
  label: str = "label"  # Field with the class index.
  templates: tuple[str, ...] = (PLACE,)
  names: tuple[str, ...] = ()  # To say in place of the data's class names.
  top_k: tuple[int, ...] = (1, 5)

  def __post_init__(self):
    lacking = [t for t in self.templates if PLACE not in t]
    if lacking or not self.templates:
      raise errors.UserError(
        f"templates={self.templates}, expected at least one, each with "
        f"{PLACE!r} where the class's name goes."
      )
    if self.names and len(self.names) != len(self.class_names):
      raise errors.UserError(
        f"names has {len(self.names)} names, the data have "
        f"{len(self.class_names)} classes: {self.class_names}."
      )

  def reads(self):
    return {"batches": (self.modality, self.text, self.label)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    scores, labels = self._collect(predict, params)
    for k in self.top_k:
      if k < scores.shape[1]:
        yield f"top{k}", ranked.top_k(scores, labels, k)
    yield "majority", float(np.bincount(labels).max() / len(labels))

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    scores, labels = self._collect(predict, params)
    yield confusion(scores, labels, self.class_names)

  def _collect(
    self, predict: Predict, params: Any
  ) -> tuple[Float[np.ndarray, "b v"], Int[np.ndarray, " b"]]:
    first = next(iter(self.batches()))
    classes = self._classes(predict, params, first[self.text].shape)
    x, labels = features.collect(
      self.batches(), self._project, self.label, predict, params
    )
    return x @ classes.T, labels

  def _classes(
    self, predict: Predict, params: Any, shape: tuple[int, ...]
  ) -> Float[np.ndarray, "v s"]:
    """One vector per class, from batches of texts of this shape."""
    b, max_tokens = shape
    names = self.names or self.class_names
    texts = [t.replace(PLACE, name) for name in names for t in self.templates]
    ids = np.stack([self._encode(text, max_tokens) for text in texts])
    vectors = []
    for part in features.chunks(len(ids), b):
      rows = ids[part]
      filled = np.pad(rows, ((0, b - len(rows)), (0, 0)), mode="edge")
      batch = {
        self.text: filled,
        f"{self.text}_mask": filled != self.tokenizer.pad_id,
        "example_mask": np.arange(b) < len(rows),
      }
      out = predict(params, self._project_text, batch)
      vectors.append(out[: len(rows)].astype(np.float64))
    each = np.concatenate(vectors)
    grouped = each.reshape(len(names), len(self.templates), -1)  # v t s
    return features.unit(grouped.mean(axis=1))

  def _encode(self, text: str, max_tokens: int) -> Int[np.ndarray, " t"]:
    length = self.tokenizer.num_tokens(text)
    if length > max_tokens:
      raise errors.UserError(
        f"The text {text!r} of a class has {length} tokens, the field "
        f"{self.text!r} holds {max_tokens}: use a shorter template, or raise "
        "data.text.max_tokens."
      )
    return self.tokenizer.encode(text, max_tokens)

  def _project(self, apply, batch):
    del batch
    return apply("project", self.modality)

  def _project_text(self, apply, batch: Mapping[str, Any]):
    del batch
    return apply("project", self.text)
