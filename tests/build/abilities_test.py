import pytest
from flax import linen as nn

from mmjax.build import abilities
from mmjax.core import errors
from mmjax.core.interfaces import Decoding
from mmjax.models.decoders.text import text
from mmjax.objectives import OBJECTIVES
from mmjax.objectives.multitask import WeightedObjective


def _objectives(**sections):
  return {
    name: WeightedObjective(
      fields.pop("task", "main"), OBJECTIVES[fields.pop("name", name)](**fields)
    )
    for name, fields in sections.items()
  }


@pytest.mark.parametrize(
  ("name", "fields", "expected"),
  [
    ("captioning", {}, Decoding("text", ("image",))),
    (
      "captioning",
      dict(given=("video", "audio"), parallel=True, head="h"),
      Decoding("text", ("audio", "video"), head="h"),
    ),
    ("prefix_lm", dict(given=()), Decoding("text", (), "prefix")),
    ("causal_lm", {}, Decoding("text")),
    ("causal_lm", dict(part="encoder"), None),
    (
      "vqa",
      dict(generate=True),
      Decoding("answer", ("image", "text"), fused=True, head="answer"),
    ),
  ],
)
def test_objectives_tell_how_their_text_is_said(name, fields, expected):
  assert OBJECTIVES[name](**fields).decoding == expected


def test_the_only_objective_that_says_a_text_is_found():
  objectives = _objectives(masked_lm={}, captioning=dict(task="other"))

  assert abilities.find_decoding(objectives) == "captioning"
  assert abilities.find_decoding(objectives, task="other") == "captioning"
  with pytest.raises(errors.UserError, match="no decoder"):
    abilities.find_decoding(objectives, task="main")


def test_one_of_several_has_to_be_named():
  objectives = _objectives(captioning={}, prefix_lm={})

  with pytest.raises(errors.UserError, match="Name one"):
    abilities.find_decoding(objectives)
  assert abilities.find_decoding(objectives, "prefix_lm") == "prefix_lm"
  with pytest.raises(errors.UserError, match="Did you mean 'prefix_lm'"):
    abilities.find_decoding(objectives, "prefix_ml")


def test_a_model_without_a_decoder_says_what_it_can_do():
  objectives = _objectives(
    masked_lm={}, contrastive={}, vision_token_prediction={}
  )

  with pytest.raises(errors.UserError) as e:
    abilities.find_decoding(objectives)

  for word in ("'masked_lm' (MaskedLM)", "retrieval", "masked_prediction"):
    assert word in str(e.value)


def test_an_objective_that_picks_classes_is_found():
  objectives = _objectives(
    masked_lm={}, vqa=dict(num_classes=3), classification=dict(num_classes=2)
  )

  assert abilities.find_classes(objectives, "vqa") == "vqa"
  assert abilities.find_classes(objectives, "masked_lm") == ""
  with pytest.raises(errors.UserError, match="Name one"):
    abilities.find_classes(objectives)


def test_classes_that_several_tasks_learn_are_one():
  first = OBJECTIVES["vqa"](num_classes=3)
  objectives = {
    name: WeightedObjective(name, objective)
    for name, objective in dict(
      one=first, two=OBJECTIVES["vqa"](num_classes=3)
    ).items()
  }

  assert abilities.find_classes(objectives) == "one"
  other = OBJECTIVES["vqa"](num_classes=3, head="other")
  objectives["three"] = WeightedObjective("three", other)
  with pytest.raises(errors.UserError, match="Name one"):
    abilities.find_classes(objectives)


class _WithoutCache(nn.Module):
  @nn.compact
  def __call__(self, inputs, context, *, mask=None, train):
    return inputs


class _TakesAnything(nn.Module):
  @nn.compact
  def __call__(self, inputs, context, **more):
    return inputs


def test_a_decoder_that_keeps_no_cache_says_no_text():
  abilities.check_cache("text", text(vocab_size=7, max_tokens=4, size="Ti"))
  abilities.check_cache("text", _TakesAnything())
  with pytest.raises(errors.UserError, match="_WithoutCache.*'cache_size'"):
    abilities.check_cache("text", _WithoutCache())
