import pytest

from mmjax.build import evaluators as evaluators_lib
from mmjax.build import parts
from mmjax.core import errors

LABELS = dict(split="test", label=dict(field="group"))


@pytest.fixture
def make(resolve):
  """`make(stage, section)`: the evaluator `mine` that a section describes."""

  def run(stage, section):
    def edit(config):
      config.evaluators = dict(mine=section)

    config = resolve(stage, edit)
    made = parts.make_parts(config)
    return evaluators_lib.make_evaluators(
      config, made.objectives, made.info, 8
    )["mine"]

  return run


@pytest.mark.parametrize(
  ("stage", "section", "field"),
  [
    # Without labels there are no classes, without texts no tokenizer.
    ("pretrain", dict(name="classification"), "label"),
    ("pretrain", dict(name="knn", train_data=LABELS), "label"),
    ("finetune", dict(name="retrieval"), "text"),
    # With them, a field is lacking.
    (
      "pretrain",
      dict(name="classification", modality="video", data=LABELS),
      "video",
    ),
    ("pretrain", dict(name="retrieval", group="image_id"), "image_id"),
    (
      "finetune",
      dict(name="knn", data=LABELS, train_data=dict(split="test", label=None)),
      "label",
    ),
    # What an objective reads.
    (
      "pretrain",
      dict(name="loss", data=dict(split="test", image=None)),
      "image",
    ),
  ],
)
def test_what_the_data_lack_is_named(make, stage, section, field):
  section = {"data": dict(split="test"), **section}
  with pytest.raises(errors.UserError) as e:
    make(stage, section)
  text = str(e.value)
  assert "config.evaluators.mine" in text and repr(section["name"]) in text
  assert repr(field) in text and "'synthetic'" in text
  assert "split 'test'" in text


def test_a_lacking_field_says_the_nearest(make):
  section = dict(name="retrieval", group="concepts", data=dict(split="test"))
  with pytest.raises(errors.UserError, match="Did you mean 'concept'"):
    make("pretrain", section)


def test_texts_of_the_source_are_fields_too(make):
  section = dict(name="retrieval", group="concept", data=dict(split="test"))
  assert make("pretrain", section).group == "concept"


def test_data_to_fit_on_are_asked_for(make):
  section = dict(name="linear_probe", data=LABELS)
  with pytest.raises(errors.UserError, match=r"mine\.train_data"):
    make("pretrain", section)


def test_a_loss_needs_only_the_fields_of_its_objectives(make):
  section = dict(
    name="loss",
    only=("vtp",),
    data=dict(split="test", text=dict(mask=None)),
  )
  with pytest.raises(errors.UserError, match="'text_masked'.*config.data.text"):
    make("pretrain", {**section, "only": ("mlm",)})
  assert make("pretrain", section).only == ("vtp",)
