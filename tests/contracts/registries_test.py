"""Every plug-in of a room stands in the room's registry, under its file."""

import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Registry -> files of its folder that hold no plug-in.
SHELVES = {
  "mmjax.objectives.OBJECTIVES": {
    "codebook_health",
    "forward_once",
    "hidden",
    "losses",
    "mixed_pictures",
    "multitask",
    "next_token",
    "pairs",
    "ring",
    "weighting",
  },
  "mmjax.evaluators.EVALUATORS": {
    "artifacts",
    "features",
    "ranking",
    "samples",
    "texts",
  },
  "mmjax.models.encoders.ENCODERS": {"encoder"},
  "mmjax.models.fusion.FUSIONS": {"inputs", "restore", "stream"},
}
# What makes a class of a room a plug-in, whatever its file is called.
METHODS = {
  "mmjax.objectives.OBJECTIVES": ("__call__", "fields", "heads", "chance"),
  "mmjax.evaluators.EVALUATORS": ("run",),
}


def _table(shelf):
  package, _, name = shelf.rpartition(".")
  return importlib.import_module(package), name


def _folded(name):
  return name.replace("_", "").lower()


def _public(module):
  """What a module defines itself."""
  return {
    name: value
    for name, value in vars(module).items()
    if not name.startswith("_")
    and callable(value)
    and getattr(value, "__module__", "") == module.__name__
  }


def _plug_ins(shelf):
  """Yields (file stem, object) for each plug-in of a folder."""
  package, _ = _table(shelf)
  for file in sorted(Path(package.__file__).parent.glob("*.py")):
    if file.stem == "__init__" or file.stem in SHELVES[shelf]:
      continue
    module = importlib.import_module(f"{package.__name__}.{file.stem}")
    for name, value in _public(module).items():
      methods = METHODS.get(shelf)
      named = _folded(name) == _folded(file.stem)
      if named or (
        methods
        and inspect.isclass(value)
        and all(m in vars(value) for m in methods)
      ):
        yield file.stem, value


@pytest.mark.parametrize("shelf", SHELVES)
def test_every_plug_in_is_registered(shelf):
  package, name = _table(shelf)
  registered = list(getattr(package, name).values())
  for stem, value in _plug_ins(shelf):
    assert value in registered, f"{stem}.py: {value.__name__} not in {name}"


@pytest.mark.parametrize("shelf", SHELVES)
def test_every_file_has_a_plug_in(shelf):
  package, _ = _table(shelf)
  folder = Path(package.__file__).parent
  files = {f.stem for f in folder.glob("*.py")} - {"__init__"}
  with_plug_in = {stem for stem, _ in _plug_ins(shelf)}
  assert files - SHELVES[shelf] == with_plug_in


@pytest.mark.parametrize("shelf", SHELVES)
def test_a_registry_is_a_plain_sorted_dict_of_names(shelf):
  package, name = _table(shelf)
  table = getattr(package, name)
  assert type(table) is dict and table
  assert list(table) == sorted(table)
  assert len(set(table.values())) == len(table)
