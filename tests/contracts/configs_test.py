"""Every recipe under configs/ loads, and says how it is run."""

import ast
import json
from pathlib import Path

import jax
import ml_collections as mlc
import pytest

from mmjax.core import config as configs
from mmjax.sharding.mesh import AXES

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "configs").rglob("*.py"))


def _names(file):
  return file.relative_to(ROOT).as_posix()


@pytest.fixture(params=FILES, ids=_names)
def file(request):
  return request.param


def test_a_config_loads_to_plain_values(file):
  config = configs.load(str(file))
  assert isinstance(config, mlc.ConfigDict)
  plain = configs.plain(config)
  assert json.loads(json.dumps(plain)) == plain


def test_loading_a_config_twice_gives_the_same(file):
  first, second = (configs.plain(configs.load(str(file))) for _ in range(2))
  assert configs.diff(first, second) == {}


def test_a_config_says_how_it_is_run(file):
  doc = ast.get_docstring(ast.parse(file.read_text())) or ""
  assert f"mmjax train --config={_names(file)}" in doc, (
    f"the docstring of {_names(file)} lacks its command"
  )


def test_a_config_imports_nothing_of_mmjax(file):
  for node in ast.walk(ast.parse(file.read_text())):
    names = (
      [a.name for a in getattr(node, "names", [])]
      if isinstance(node, ast.Import)
      else [getattr(node, "module", "") or ""]
    )
    assert not any(n.split(".")[0] == "mmjax" for n in names)


def test_a_config_describes_a_run_that_can_be_built(file, starter_path):
  from mmjax.build import evaluators, experiment, settings

  config = configs.load(str(file))
  made_up = "conversations" in config.data.source  # From what ships.
  if config.data.source.startswith("starter_") and not made_up:
    config.data.path = starter_path
  # One device of any machine; what is loaded from elsewhere is not needed.
  config = settings.resolve(config)
  for axis in AXES:
    config.mesh[axis] = 1
  made = experiment.prepare(config, jax.devices()[:1])

  total, trained = made.num_params()
  assert 0 < trained <= total
  assert evaluators.make_evaluators(
    made.config, made.parts.objectives, made.parts.info, made.batch_size, made
  )
