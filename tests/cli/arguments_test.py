import json
import sys

import ml_collections as mlc
import pytest

from mmjax.cli import arguments
from mmjax.cli.arguments import Flag
from mmjax.core import config as configs
from mmjax.core import errors, registry

FLAGS = (
  Flag("workdir", "", "folder of a run", required=True),
  Flag("count", 3, "how many"),
  Flag("rate", 0.5, "how fast"),
  Flag("pictures", True, "draw"),
)
DOC = "Does something.\n\n  mmjax something --workdir=W\n"


def parse(*argv):
  return arguments.parse(DOC, FLAGS, argv)


def test_flags_have_the_type_of_their_default():
  got = parse("--workdir=W", "--count=7", "--rate=1", "--pictures=false")

  assert (got.workdir, got.count, got.rate, got.pictures) == (
    "W",
    7,
    1.0,
    False,
  )


def test_defaults_stand_for_what_is_not_given():
  got = parse("--workdir=W", "--nopictures")

  assert (got.count, got.rate, got.pictures) == (3, 0.5, False)


def test_missing_flag_is_named_with_its_meaning_and_the_example():
  with pytest.raises(errors.UserError) as e:
    parse("--count=3")

  assert "--workdir is missing: folder of a run" in str(e.value)
  assert "mmjax something --workdir=W" in str(e.value)


def test_unknown_flag_names_the_nearest():
  with pytest.raises(errors.UserError, match="Did you mean '--workdir'"):
    parse("--workdirr=W")


def test_flag_of_another_type_is_refused_by_name():
  with pytest.raises(errors.UserError, match="count"):
    parse("--workdir=W", "--count=many")


def test_argument_without_dashes_is_refused():
  with pytest.raises(errors.UserError, match="Unexpected argument 'runs/a'"):
    parse("--workdir=W", "runs/a")


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_prints_example_flags_and_defaults(flag, capsys):
  with pytest.raises(SystemExit) as e:
    parse(flag)

  out = capsys.readouterr().out
  assert e.value.code == 0
  assert "mmjax something --workdir=W" in out
  assert "--count=  how many [3]" in out


def test_overrides_are_told_from_flags():
  argv = ["--config=a.py", "--config.x=1", "--workdir=W", "-config.y.z=2"]

  rest, overrides = arguments.split_overrides(argv)

  assert rest == ["--config=a.py", "--workdir=W"]
  assert overrides == ["--config.x=1", "-config.y.z=2"]


def config():
  made = mlc.ConfigDict(
    {
      "whole": 1,
      "real": 1.0,
      "yes": True,
      "text": "a",
      "pair": (1, 2),
      "names": ("a",),
      "none": None,
      "group": {"inner": {"rate": 0.5}},
    }
  )
  made.lock()
  return made


@pytest.mark.parametrize(
  ("argument", "expected"),
  [
    ("--config.whole=-7", -7),
    ("--config.real=3", 3.0),
    ("--config.real=1e-3", 1e-3),
    ("--config.yes=false", False),
    ("--config.yes=True", True),
    ("--config.yes=0", False),
    ("--config.text=3", "3"),
    ("--config.text=", ""),
    ("--config.text=a=b", "a=b"),
    ("--config.pair=(3, 4)", (3, 4)),
    ("--config.pair=[3, 4]", (3, 4)),
    ("--config.pair=3,4", (3, 4)),
    ("--config.pair=3", (3,)),
    ("--config.names=('b', 'c')", ("b", "c")),
    ("--config.none=4", 4),
    ("--config.none=None", None),
    ("--config.group.inner.rate=0", 0.0),
  ],
)
def test_an_override_has_the_type_of_the_value(argument, expected):
  made = arguments.override(config(), [argument])

  node = made
  for key in argument.partition("=")[0].split(".")[1:]:
    node = node[key]
  assert node == expected
  assert type(node) is type(expected)


@pytest.mark.parametrize(
  ("argument", "expected"),
  [
    ("--config.whole=1.5", "--config.whole=1.5: expected int, as in 1"),
    ("--config.real=fast", "expected float"),
    ("--config.yes=maybe", "expected bool"),
    ("--config.pair=(1", "expected tuple"),
    ("--config.names=b", "expected tuple"),
  ],
)
def test_an_override_of_another_type_says_what_was_expected(argument, expected):
  with pytest.raises(errors.UserError) as e:
    arguments.override(config(), [argument])

  assert expected in str(e.value)


@pytest.mark.parametrize(
  ("argument", "expected"),
  [
    ("--config.hole=1", "'config.hole'. Did you mean 'whole'"),
    ("--config.group.iner.rate=1", "'config.group.iner'. Did you mean 'inner'"),
    ("--config.whole.more=1", "'config.whole.more'"),
  ],
)
def test_an_override_of_an_unknown_key_names_the_nearest(argument, expected):
  with pytest.raises(errors.UserError) as e:
    arguments.override(config(), [argument])

  assert expected in str(e.value)


def test_an_override_of_a_group_lists_its_keys():
  with pytest.raises(errors.UserError, match=r"is a group.*\['inner'\]"):
    arguments.override(config(), ["--config.group=3"])


def test_an_override_without_a_value_is_refused():
  with pytest.raises(errors.UserError, match="has no value: --config.whole="):
    arguments.override(config(), ["--config.whole"])


def test_later_overrides_win():
  made = arguments.override(config(), ["--config.whole=2", "--config.whole=3"])

  assert made.whole == 3


def test_default_of_the_library_can_be_overridden(tiny):
  address = tiny("pretrain").partition("=")[2]

  made = arguments.load_config(
    address, ["--config.model.encoders.text.stack.dropout_rate=0.25"]
  )

  assert made.model.encoders.text.stack.dropout_rate == 0.25


def test_sections_that_shared_a_dict_are_overridden_one_by_one(tiny):
  address = tiny("pretrain").partition("=")[2]

  made = arguments.load_config(
    address, ["--config.model.fusion.size.num_layers=2"]
  )

  assert made.model.fusion.size.num_layers == 2
  assert made.model.encoders.text.size.num_layers == 1


def test_a_workdirs_config_is_what_was_saved(tiny, tmp_path):
  from mmjax.build import workdirs

  address = tiny("pretrain").partition("=")[2]
  saved = arguments.load_config(address, ["--config.train.seed=5"])
  workdirs.claim(tmp_path, saved)

  loaded = arguments.load_saved(tmp_path, ["--config.log.every_steps=9"])

  assert loaded.log.every_steps == 9
  loaded.log.every_steps = saved.log.every_steps
  assert loaded.to_dict() == saved.to_dict()


def test_folder_without_a_run_says_what_was_expected(tmp_path):
  with pytest.raises(errors.UserError, match="No run at .*'config.json'"):
    arguments.load_saved(tmp_path, [])


def test_a_saved_config_finds_the_plug_ins_beside_its_file(
  tmp_path, monkeypatch
):
  here, workdir = tmp_path / "mine", tmp_path / "W"
  here.mkdir()
  workdir.mkdir()
  (here / "beside_config.py").write_text(
    "def make(*, split, path=''):\n  return [split]\n"
  )
  (here / "run.py").write_text(
    "def get_config():\n  return dict(data=dict(source='beside_config:make'))\n"
  )
  monkeypatch.setattr("sys.path", list(sys.path))
  config = arguments.load_config(str(here / "run.py"), [])
  (workdir / "config.json").write_text(json.dumps(configs.plain(config)))
  # As in a new process.
  monkeypatch.setattr("sys.path", [p for p in sys.path if p != str(here)])

  arguments.load_saved(workdir, [])

  found = registry.lookup("source", "beside_config:make", {})
  assert found(split="x") == ["x"]
