"""Questions about what the fields of a source say."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.core.batch import FieldSpec
from mmjax.data.transforms.text import text_field


@dataclass(frozen=True, kw_only=True)
class QuestionTransform:
  """Asks one of some questions: adds the texts `question` and `answer_text`.

  They are for `data.text.field`, `data.answer.field` and `data.label.field`
  to read; the batch gets nothing of its own.
  """

  # (question, field of the source that answers it).
  templates: tuple[tuple[str, ...], ...] = ()

  def __post_init__(self):
    if not self.templates or any(len(pair) != 2 for pair in self.templates):
      raise errors.UserError(
        f"templates={self.templates}, expected pairs of a question and the "
        "field that answers it."
      )

  def specs(self) -> dict[str, FieldSpec]:
    return {}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out pictures are asked one question each too.
    question, field = self.templates[rng.integers(len(self.templates))]
    answer = text_field(example, field)
    return {**example, "question": question, "answer_text": answer}
