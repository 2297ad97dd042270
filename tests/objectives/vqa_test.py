import pytest

from mmjax.core import errors
from mmjax.objectives.captioning import Captioning
from mmjax.objectives.classification import Classification
from mmjax.objectives.vqa import vqa


def test_picking_an_answer_is_classifying_the_fused_question():
  assert vqa(num_classes=7, multi_label=True) == Classification(
    num_classes=7,
    modality="text",
    given=("image",),
    multi_label=True,
    head="answer",
  )


def test_saying_an_answer_is_captioning_picture_and_question():
  got = vqa(generate=True, given=("video", "audio"), tied=True)
  assert got == Captioning(
    text="answer",
    given=("text", "video", "audio"),
    fused=True,
    tied=True,
    head="answer",
  )


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({}, "num_classes=None.*data.label.*generate=True"),
    (dict(generate=True, multi_label=True), "choose one"),
    (dict(generate=True, head_kind="mlp"), "head_kind='mlp'.*choose one"),
  ],
)
def test_no_way_to_answer_or_two_are_refused(fields, message):
  with pytest.raises(errors.UserError, match=message):
    vqa(**fields)
