import dataclasses

import ml_collections as mlc
import pytest

from mmjax.build import settings
from mmjax.core import errors


def broken(resolve, stage, key, value=1):
  """Sets `a.b.c` of a stage's config, then resolves it."""

  def edit(config):
    *parents, last = key.split(".")
    node = config
    for parent in parents:
      node = node[parent]
    node[last] = value

  return resolve(stage, edit)


@pytest.mark.parametrize("group", settings.GROUPS)
def test_an_empty_config_has_the_defaults_of_every_group(group):
  resolved = settings.resolve(mlc.ConfigDict())

  assert settings.settings(resolved, group) == settings.GROUPS[group]()


@pytest.mark.parametrize("group", settings.GROUPS)
def test_every_field_of_a_group_can_be_overridden(group):
  resolved = settings.resolve(mlc.ConfigDict())

  fields = {f.name for f in dataclasses.fields(settings.GROUPS[group])}
  assert set(resolved[group]) == fields


def test_a_resolved_config_resolves_to_itself(resolve):
  once = resolve("pretrain")

  assert settings.resolve(once).to_dict() == once.to_dict()


def test_defaults_of_plug_ins_are_filled_in(resolve):
  resolved = resolve("pretrain")

  # As written in the signatures of the objective, the encoder, the fusion.
  assert resolved.tasks.main.objectives.mlm.to_dict() == {
    "name": "masked_lm",
    "text": "text",
    "given": ("image",),
    "head": "mlm",
    "tied": False,
    "head_activation": "gelu_tanh",
    "head_norm_epsilon": 1e-6,
    "weight": 1.0,
  }
  assert resolved.model.encoders.image.stack.remat == "none"
  assert resolved.model.fusion.stack.dropout_rate == 0.0


def test_sections_of_the_data_have_all_their_keys(resolve):
  data = resolve("finetune").data

  assert data.image.flip is False
  assert data.image.mask.to_dict() == {}
  assert data.text is None
  assert data.label.field == "group"


def test_text_says_which_tokenizer_it_uses(resolve):
  assert resolve("pretrain").data.text.tokenizer == "starter"


def test_whole_numbers_become_floats_where_the_default_is_one(resolve):
  resolved = broken(resolve, "tokenizer", "optimizer.peak_lr", 1)

  assert type(resolved.optimizer.peak_lr) is float


@pytest.mark.parametrize(
  ("stage", "key", "value", "near"),
  [
    ("tokenizer", "optimiser", {}, "optimizer"),
    ("tokenizer", "train.batch_sise", 8, "batch_size"),
    ("tokenizer", "init", dict(from_checkpont="a"), "from_checkpoint"),
    ("tokenizer", "tasks.main.wieght", 2.0, "weight"),
    (
      "tokenizer",
      "tasks.main.objectives.codes.name",
      "tokenizer_trainng",
      "tokenizer_training",
    ),
    ("finetune", "model.encoders.image.name", "vitt", "vit"),
    ("pretrain", "model.fusion.name", "joined", "joint"),
    ("tokenizer", "model.visual_tokenizer.name", "vqq", "vq"),
    (
      "tokenizer",
      "evaluators",
      dict(a=dict(name="retrival")),
      "retrieval",
    ),
  ],
)
def test_unknown_name_says_the_nearest(resolve, stage, key, value, near):
  with pytest.raises(errors.UserError, match=f"Did you mean '{near}'"):
    broken(resolve, stage, key, value)


def test_plug_in_without_a_name_lists_the_known(resolve):
  with pytest.raises(
    errors.UserError, match="objective has no 'name'.*'masked_lm'"
  ):
    broken(resolve, "tokenizer", "tasks.main.objectives.more", {})


def test_value_of_another_type_says_what_was_expected(resolve):
  with pytest.raises(
    errors.UserError,
    match="config.train.num_steps='many' is of type str, expected int",
  ):
    broken(resolve, "tokenizer", "train", dict(num_steps="many"))


@pytest.mark.parametrize("key", ["num_steps", "batch_size", "accumulate"])
def test_sizes_of_a_run_are_positive(resolve, key):
  with pytest.raises(errors.UserError, match=f"config.train: {key}=0"):
    broken(resolve, "tokenizer", f"train.{key}", 0)


def test_a_resolved_config_takes_no_new_key(resolve):
  with pytest.raises(AttributeError):
    resolve("tokenizer").train.steps = 3
