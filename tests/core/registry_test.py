import dataclasses

import flax.linen as nn
import pytest

from mmjax.core import errors, registry

TABLE = {"masked_lm": 1, "contrastive": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thing:
  width: int
  rate: float = 0.0

  def __post_init__(self):
    if self.rate < 0:
      raise ValueError(f"Thing.rate={self.rate}, expected >= 0.")


class Layer(nn.Module):
  embed_dim: int
  num_heads: int = 1


def test_a_name_gives_its_entry():
  assert registry.lookup("objective", "contrastive", TABLE) == 2


@pytest.mark.parametrize("name", ["maskedlm", "masked-lm"])
def test_an_unknown_name_is_refused_with_the_nearest_one(name):
  with pytest.raises(
    errors.UserError,
    match=f"Unknown objective '{name}'. Did you mean 'masked_lm'",
  ):
    registry.lookup("objective", name, TABLE)


def test_no_name_is_refused():
  with pytest.raises(errors.UserError, match="Known: .*contrastive"):
    registry.lookup("objective", "", TABLE)


def test_an_address_gives_the_object_in_a_users_file(tmp_path, monkeypatch):
  file = tmp_path / "plug_in_of_registry_test.py"
  file.write_text("class Mine:\n  number = 7\n")
  monkeypatch.syspath_prepend(tmp_path)
  found = registry.lookup("objective", "plug_in_of_registry_test:Mine", TABLE)
  assert found.number == 7


def test_an_address_that_does_not_import_is_refused():
  with pytest.raises(errors.UserError, match="Cannot import 'no_such_file'"):
    registry.lookup("objective", "no_such_file:Mine", TABLE)


def test_an_address_without_the_object_is_refused_with_the_nearest_one():
  with pytest.raises(
    errors.UserError, match="has no 'OrderdDict'.*Did you mean 'OrderedDict'"
  ):
    registry.lookup("objective", "collections:OrderdDict", TABLE)


def test_construct_joins_the_config_and_what_others_give():
  thing = registry.construct("things.a", Thing, {"rate": 0.5}, width=3)
  assert thing == Thing(width=3, rate=0.5)


def test_construct_lets_the_config_win():
  thing = registry.construct("things.a", Thing, {"width": 4}, width=3)
  assert thing.width == 4


def test_construct_refuses_an_unknown_key_with_its_place_in_the_config():
  with pytest.raises(errors.UserError) as e:
    registry.construct("things.a", Thing, {"rat": 0.5}, width=3)
  assert str(e.value) == (
    "Unknown key 'config.things.a.rat'. Did you mean 'rate'? "
    "Thing takes ['rate']."
  )


def test_construct_names_the_place_of_a_missing_key():
  with pytest.raises(errors.UserError, match=r"config\.things\.a: .*width"):
    registry.construct("things.a", Thing, {})


def test_construct_names_the_place_of_a_bad_value():
  with pytest.raises(
    errors.UserError, match=r"config\.things\.a: Thing\.rate=-1"
  ):
    registry.construct("things.a", Thing, {"rate": -1.0}, width=3)


def test_construct_passes_anything_to_a_callable_that_takes_anything():
  def collect(**fields):
    return fields

  assert registry.construct("x", collect, {"a": 1}, b=2) == {"a": 1, "b": 2}


def test_a_linen_modules_own_fields_are_no_fields_of_a_config():
  assert registry.field_names(Layer) == ["embed_dim", "num_heads"]
  with pytest.raises(errors.UserError, match="Unknown key 'config.x.parent'"):
    registry.construct("x", Layer, {"parent": None}, embed_dim=4)
