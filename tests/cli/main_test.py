import ast
import importlib
import types
from pathlib import Path

import pytest

import mmjax as package
from mmjax.cli import main
from mmjax.core import errors

FOLDER = Path(main.__file__).parent


def fail_with(monkeypatch, error):
  """Puts a verb in place that raises."""

  def verb(argv):
    raise error

  real = importlib.import_module
  monkeypatch.setattr(
    main.importlib,
    "import_module",
    lambda name: (
      types.SimpleNamespace(main=verb)
      if name == "mmjax.cli.train"
      else real(name)
    ),
  )


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"], ["help"]])
def test_help_lists_every_verb(mmjax, argv):
  result = mmjax(*argv)

  assert result.status == 0
  for verb, (_, what) in main.VERBS.items():
    assert f"{verb} " in result.out and what in result.out


def test_version_is_that_of_the_package(mmjax):
  result = mmjax("--version")

  assert (result.status, result.out) == (0, f"mmjax {package.__version__}\n")


@pytest.mark.parametrize("verb", main.VERBS)
def test_help_of_a_verb_shows_an_example_and_its_flags(mmjax, verb):
  result = mmjax(*verb.split(), "--help")

  assert result.status == 0
  assert result.err == ""
  assert f"mmjax {verb} " in result.out
  assert "flags:" in result.out


@pytest.mark.parametrize("verb", main.VERBS)
def test_example_of_a_verb_uses_flags_that_it_has(mmjax, verb):
  out = mmjax(*verb.split(), "--help").out

  example, _, flags = out.partition("flags:")
  used = {
    word[2:].split("=")[0] for word in example.split() if word[:2] == "--"
  }
  used = {name for name in used if not name.startswith("config.")}
  for name in used:
    assert f"--{name}=" in flags


def test_verb_of_two_words_is_found():
  assert main.find_verb(["data", "check", "a"]) == ("data check", ["a"])
  assert main.find_verb(["train", "check"]) == ("train", ["check"])


def test_unknown_verb_names_the_nearest(refused):
  assert "Did you mean 'train'" in refused("trian")


def test_half_a_verb_names_what_may_follow(refused):
  message = "'mmjax data' needs one of ['check', 'prepare', 'tokens'] after it"
  assert message in refused("data")


def test_users_error_is_one_message_and_status_2(monkeypatch, mmjax):
  fail_with(monkeypatch, errors.UserError("Batch of 3.\nTake 4."))

  result = mmjax("train")

  assert result.status == 2
  assert result.err == "mmjax: Batch of 3.\nTake 4.\n"
  assert result.out == ""


def test_debug_shows_the_traceback_of_a_users_error(monkeypatch, mmjax):
  fail_with(monkeypatch, errors.UserError("Batch of 3."))

  result = mmjax("train", "--debug")

  assert result.status == 2
  assert "Traceback (most recent call last)" in result.err
  assert result.err.endswith("mmjax: Batch of 3.\n")


@pytest.mark.parametrize("error", [ValueError("no"), ZeroDivisionError()])
def test_fault_of_the_program_has_a_traceback_and_status_1(
  monkeypatch, mmjax, error
):
  fail_with(monkeypatch, error)

  result = mmjax("train")

  assert result.status == 1
  assert "Traceback (most recent call last)" in result.err
  assert type(error).__name__ in result.err


def test_interrupted_command_has_the_status_of_a_shell(monkeypatch, mmjax):
  fail_with(monkeypatch, KeyboardInterrupt())

  result = mmjax("train")

  assert (result.status, result.err) == (130, "mmjax: interrupted\n")


def test_run_exits_with_the_status(monkeypatch):
  fail_with(monkeypatch, errors.UserError("no"))

  with pytest.raises(SystemExit) as e:
    main.run(["train"])

  assert e.value.code == 2


def test_every_verb_has_its_module_and_every_module_its_use():
  modules = {module for module, _ in main.VERBS.values()}
  files = {
    file.stem
    for file in FOLDER.glob("*.py")
    if any(
      isinstance(node, ast.FunctionDef) and node.name == "main"
      for node in ast.parse(file.read_text()).body
    )
  }

  assert modules == files - {"main"}
