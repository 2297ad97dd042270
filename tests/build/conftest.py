"""The three tiny stages of `tests/e2e/tiny.py`, resolved."""

from pathlib import Path

import pytest

from mmjax.build import settings, training
from mmjax.core import config as config_lib

TINY = Path(__file__).parents[1] / "e2e" / "tiny.py"


def _load(stage):
  return config_lib.load(f"{TINY}:{stage}")


@pytest.fixture(scope="session")
def load():
  """`load(stage)`: the config as its file gives it."""
  return _load


@pytest.fixture(scope="session")
def resolve():
  """`resolve(stage, edit)`: changed by `edit(config)`, then completed."""

  def run(stage, edit=lambda config: None):
    config = _load(stage)
    edit(config)
    return settings.resolve(config)

  return run


@pytest.fixture(scope="session")
def tokenizer_run(resolve, tmp_path_factory):
  """A workdir in which a visual tokenizer was trained for one step."""

  def short(config):
    config.train.num_steps = 1
    config.optimizer.warmup_steps = 0

  workdir = tmp_path_factory.mktemp("tokenizer")
  training.Run(resolve("tokenizer", short), workdir).execute()
  return workdir


@pytest.fixture
def tiny(resolve):
  """`tiny(**{"a.b": value})`: the tokenizer's config with some changes."""

  def make(**changes):
    def edit(config):
      for key, value in changes.items():
        group, _, name = key.partition(".")
        if group not in config:
          config[group] = {}
        config[group][name] = value

    return resolve("tokenizer", edit)

  return make
