import numpy as np
import pytest

from mmjax.build import evaluators as evaluators_lib
from mmjax.build import parts
from mmjax.core import errors
from mmjax.data import sources


def evaluators(resolve, stage, **sections):
  def edit(config):
    config.evaluators = sections

  config = resolve(stage, edit)
  made = parts.make_parts(config)
  return evaluators_lib.make_evaluators(config, made.objectives, made.info, 8)


def test_an_evaluator_has_its_own_split_once_and_in_order(resolve):
  made = evaluators(
    resolve,
    "finetune",
    held_out=dict(name="classification", data=dict(split="test")),
  )["held_out"]

  labels = np.concatenate(
    [b["label"][b["example_mask"]] for b in made.batches()]
  )
  source = sources.open_source("synthetic", split="test")
  names = list(source.class_names["group"])
  expected = [names.index(source[i]["group"]) for i in range(len(source))]
  np.testing.assert_array_equal(labels, expected)


def test_an_evaluator_gets_the_classes_of_its_own_data(resolve):
  made = evaluators(
    resolve,
    "finetune",
    probe=dict(
      name="linear_probe",
      data=dict(split="test", label=dict(field="subgroup")),
      train_data=dict(label=dict(field="subgroup")),
    ),
  )["probe"]

  assert made.num_classes == 6
  assert len(next(made.train_batches())["label"]) == 8


def test_unknown_key_of_an_evaluator_says_the_nearest(resolve):
  with pytest.raises(
    errors.UserError,
    match=r"'config.evaluators.a.evry_steps'\. Did you mean 'every_steps'",
  ):
    evaluators(resolve, "finetune", a=dict(name="loss", evry_steps=3))


def test_an_evaluator_of_a_task_has_its_data_and_objectives(resolve):
  def edit(config):
    config.tasks = dict(
      short=dict(objectives=dict(a=dict(name="masked_lm"))),
      long=dict(
        data=dict(text=dict(max_tokens=20)),
        objectives=dict(b=dict(name="masked_lm")),
      ),
    )
    config.evaluators = dict(
      long=dict(name="loss", task="long", data=dict(split="test")),
    )

  config = resolve("pretrain", edit)
  made = parts.make_parts(config)
  found = evaluators_lib.make_evaluators(config, made.objectives, made.info, 8)[
    "long"
  ]

  assert list(found.objectives) == ["b"]
  assert next(found.batches())["text"].shape == (8, 20)


def test_an_evaluator_of_an_unknown_task_says_the_nearest(resolve):
  with pytest.raises(errors.UserError, match="Did you mean 'main'"):
    evaluators(resolve, "finetune", a=dict(name="loss", task="mian"))
