import re

import pytest

from mmjax.build import description, experiment
from mmjax.core import trees


@pytest.fixture(scope="module")
def text(resolve):
  return description.describe(resolve("pretrain"), shardings=True)


@pytest.fixture(scope="module")
def params(resolve):
  made = experiment.prepare(resolve("pretrain"))
  return made.abstract_state.params


def test_parameters_are_counted_in_all_and_by_part(text, params):
  assert f"parameters: {trees.num_params(params):,}," in text
  for part, tree in params.items():
    row = re.search(rf"^{part} +([\d,]+) +([\d,]+) ", text, re.M)
    assert int(row[1].replace(",", "")) == trees.num_params(tree)
    trained = 0 if part == "visual_tokenizer" else trees.num_params(tree)
    assert int(row[2].replace(",", "")) == trained


def test_every_parameter_has_a_row_with_its_placement(text, params):
  for name in trees.flatten(params):
    assert re.search(rf"^{name} +\(", text, re.M), name


def test_fields_say_dtype_shape_and_axes(text):
  assert re.search(r"^main +image +uint8\[b, 32, 32, 3\] +h w c ", text, re.M)


def test_tasks_say_how_often_they_are_drawn(text, resolve):
  def edit(config):
    config.mixture = "sample"
    config.tasks.main.rate = 3.0

  assert re.search(r"^main +[\d,]+ +- +100.0%$", text, re.M)
  sampled = description.describe(resolve("tokenizer", edit))
  assert re.search(r"^main +[\d,]+ +3 +100.0%$", sampled, re.M)


def test_chance_is_told_of_each_objective(text):
  assert re.search(r"^vtp +main +1.0 +2.773$", text, re.M)  # Ln 16.


def test_split_parameters_are_counted(resolve):
  def edit(config):
    config.mesh = dict(data=1, fsdp=8, rules="fsdp")

  summary = description.describe(resolve("finetune", edit))

  found = re.search(r"(\d+) of (\d+) parameters are split", summary)
  made = experiment.prepare(resolve("finetune", edit))
  specs = [s.spec for s in trees.flatten(made.shardings.params).values()]
  split = [s for s in specs if any(s)]
  assert (int(found[1]), int(found[2])) == (len(split), len(specs))
