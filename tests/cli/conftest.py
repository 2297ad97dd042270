"""The command line as a user meets it: status, stdout, stderr."""

import dataclasses
from pathlib import Path

import pytest

from mmjax.cli import main

TINY = Path(__file__).parents[1] / "e2e" / "tiny.py"


@dataclasses.dataclass(frozen=True)
class Result:
  status: int
  out: str
  err: str


@pytest.fixture(scope="session")
def tiny():
  """`tiny(stage)`: the flag that names its config."""
  return lambda stage: f"--config={TINY}:{stage}"


@pytest.fixture
def mmjax(capfd):
  """`mmjax(*argv)` runs a command in this process."""

  def run(*argv):
    capfd.readouterr()
    try:
      status = main.main([str(a) for a in argv])
    except SystemExit as e:  # After --help.
      status = e.code
    return Result(status, *capfd.readouterr())

  return run


@pytest.fixture
def refused(mmjax):
  """`refused(*argv)` expects one message and status 2; returns the message."""

  def run(*argv):
    result = mmjax(*argv)
    assert result.status == 2, result
    assert result.err.startswith("mmjax: ")
    assert result.err.count("mmjax: ") == 1
    assert "Traceback" not in result.out + result.err
    return result.err

  return run
