import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data.transforms.question import QuestionTransform

TEMPLATES = (("what shape is it?", "group"), ("what color?", "subgroup"))
EXAMPLE = {"group": "circle", "subgroup": "red"}


def test_a_question_comes_with_its_answer(rng):
  ask = QuestionTransform(templates=TEMPLATES)
  asked = [ask(EXAMPLE, rng, train=True) for _ in range(400)]
  pairs = [(a["question"], a["answer_text"]) for a in asked]
  expected = {(question, EXAMPLE[field]) for question, field in TEMPLATES}
  assert set(pairs) == expected
  share = np.mean([answer == "red" for _, answer in pairs])
  assert share == pytest.approx(0.5, abs=0.1)
  assert ask.specs() == {} and asked[0]["group"] == "circle"


def test_a_field_that_is_not_there_is_refused(rng):
  ask = QuestionTransform(templates=(("what group?", "groop"),))
  with pytest.raises(errors.UserError, match="Did you mean 'group'"):
    ask(EXAMPLE, rng, train=True)


@pytest.mark.parametrize("templates", [(), (("what?",),)])
def test_questions_without_a_field_are_refused(templates):
  with pytest.raises(errors.UserError, match="pairs of a question"):
    QuestionTransform(templates=templates)
