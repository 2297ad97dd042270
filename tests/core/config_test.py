import json

import ml_collections as mlc
import pytest

from mmjax.core import config as configs
from mmjax.core import errors, registry

CONFIG = """
import ml_collections as mlc

def get_config(arg: str = ""):
  c = mlc.ConfigDict()
  c.model = dict(size=arg or "Ti", layers=(1, 2))
  c.train = dict(num_steps=10)
  return c
"""
DEFAULTS = {
  "model": {"size": "", "layers": [], "dropout_rate": 0.0},
  "train": {"num_steps": 1, "seed": 0},
}


@pytest.fixture(autouse=True)
def keep_sys_path(monkeypatch):
  monkeypatch.syspath_prepend("")  # Restores what `load` appends.


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "recipe.py"
  path.write_text(CONFIG)
  return path


def test_load_runs_get_config(file):
  config = configs.load(str(file))
  assert isinstance(config, mlc.ConfigDict)
  assert config.model.size == "Ti" and config.train.num_steps == 10


def test_load_passes_the_argument_after_the_colon(file):
  assert configs.load(f"{file}:S").model.size == "S"
  assert configs.load(f"{file}:size=S,image=64").model.size == (
    "size=S,image=64"
  )


def test_load_refuses_a_missing_file_with_the_nearest_name(file):
  with pytest.raises(errors.UserError, match="Did you mean 'recipe.py'"):
    configs.load(str(file.with_name("recpie.py")))


def test_load_refuses_a_missing_folder(tmp_path):
  with pytest.raises(errors.UserError, match="No config file at '.*nowhere"):
    configs.load(str(tmp_path / "nowhere" / "recipe.py"))


def test_load_refuses_a_file_without_get_config(file):
  file.write_text("x = 1\n")
  with pytest.raises(errors.UserError, match=r"has no get_config\(arg"):
    configs.load(str(file))


def test_load_names_the_error_of_a_file_that_does_not_run(file):
  file.write_text("import no_such_module\n")
  with pytest.raises(
    errors.UserError, match="does not run: ModuleNotFoundError.*no_such_module"
  ):
    configs.load(str(file))


def test_load_names_the_error_of_get_config(file):
  file.write_text("def get_config(arg=''):\n  raise KeyError('size')\n")
  with pytest.raises(errors.UserError, match="fails: KeyError: 'size'"):
    configs.load(str(file))


def test_a_plug_in_beside_a_config_is_found(file):
  plug_in = file.with_name("plug_in_of_config_test.py")
  plug_in.write_text("class Mine:\n  number = 7\n")
  configs.load(str(file))
  found = registry.lookup("objective", "plug_in_of_config_test:Mine", {})
  assert found.number == 7


def test_complete_fills_in_defaults(file):
  config = configs.complete(configs.load(f"{file}:S"), DEFAULTS)
  assert config.model.size == "S"
  assert config.model.dropout_rate == 0.0
  assert config.train.to_dict() == {"num_steps": 10, "seed": 0}


def test_complete_locks_the_config(file):
  config = configs.complete(configs.load(str(file)), DEFAULTS)
  with pytest.raises(AttributeError):
    config.train.num_stepz = 3


def test_complete_leaves_config_and_defaults_alone(file):
  config = configs.load(str(file))
  configs.complete(config, DEFAULTS).train.num_steps = 99
  assert config.train.num_steps == 10 and "seed" not in config.train
  assert DEFAULTS["train"] == {"num_steps": 1, "seed": 0}


def test_complete_keeps_numbers_floats_where_the_default_is_one():
  config = mlc.ConfigDict({"model": {"dropout_rate": 0}})
  rate = configs.complete(config, DEFAULTS).model.dropout_rate
  assert isinstance(rate, float)


def test_complete_refuses_an_unknown_group_with_the_nearest_name():
  config = mlc.ConfigDict({"modle": {}})
  with pytest.raises(
    errors.UserError, match="'config.modle'. Did you mean 'model'"
  ):
    configs.complete(config, DEFAULTS)


@pytest.mark.parametrize(
  ("config", "message"),
  [
    (
      {"train": {"num_steps": "10"}},
      r"config\.train\.num_steps='10' is of type str, expected int like 1",
    ),
    (
      {"train": {"num_steps": 2.5}},
      r"config\.train\.num_steps=2\.5 is of type float",
    ),
    ({"train": 3}, r"config\.train=3 is of type int, expected ConfigDict"),
  ],
)
def test_complete_refuses_a_value_of_another_type(config, message):
  with pytest.raises(errors.UserError, match=message):
    configs.complete(mlc.ConfigDict(config), DEFAULTS)


def test_plain_is_what_json_gives_back(file):
  plain = configs.plain(configs.load(str(file)))
  assert plain == {
    "model": {"size": "Ti", "layers": [1, 2]},
    "train": {"num_steps": 10},
  }
  assert json.loads(json.dumps(plain)) == plain


def test_diff_names_each_changed_key_with_both_values():
  old = {"model": {"size": "Ti", "rate": 0.1}, "train": {"seed": 0}}
  new = {"model": {"size": "S", "rate": 0.1}, "tasks": {}}
  assert configs.diff(old, new) == {
    "model.size": ("Ti", "S"),
    "tasks": ("(absent)", {}),
    "train.seed": (0, "(absent)"),
  }


def test_diff_of_equal_configs_is_empty():
  assert configs.diff({"a": {"b": 1}}, {"a": {"b": 1}}) == {}


def test_sections_made_of_one_dict_are_changed_apart(tmp_path):
  file = tmp_path / "shared.py"
  file.write_text(
    "def get_config():\n"
    "  size = dict(layers=2)\n"
    "  return dict(a=dict(size=size), b=dict(size=size))\n"
  )
  loaded = configs.load(str(file))
  loaded.a.size.layers = 5
  assert loaded.b.size.layers == 2
