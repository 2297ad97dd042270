"""The rooms and their arrows, as `docs/architecture.md` draws them."""

import ast
import configparser
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mmjax"
FILES = sorted(PACKAGE.rglob("*.py"))

# Room -> rooms that it may import besides itself.
SIDE_ROOMS = (
  "sharding data models objectives finetune generate evaluators convert "
  "distributed"
).split()
ARROWS = {
  "core": set(),
  **{room: {"core"} for room in SIDE_ROOMS},
  "train": {"core", "sharding", "objectives"},
  "report": set(),
  "bench": {"build", "core", "data", "plan", "train"},
  "build": {"core", "train", *SIDE_ROOMS},
  "plan": {"build", "core", "sharding", "train"},
  "cli": {"build", "train", "report", "core", "bench", "plan", "distributed"},
  "__main__": {"cli"},
  "__init__": set(),
}

# Imported name -> distribution, where they differ.
DISTRIBUTIONS = {
  "absl": "absl-py",
  "PIL": "pillow",
  "orbax": "orbax-checkpoint",
  "cv2": "opencv-python-headless",
}
# Not to be imported with the modules that a model and its training need.
HEAVY = {"grain", "tensorflow_datasets", "cv2", "transformers", "gradio"}


def _names(file):
  return file.relative_to(ROOT).as_posix()


def _room(file):
  return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _module(file):
  parts = file.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file, nodes=ast.walk):
  """Yields (line, module) for every import, inside functions too.

  `from a import b` counts as `a.b`, which may be a module.
  """
  package = _module(file).split(".")
  if file.name != "__init__.py":
    package = package[:-1]
  for node in nodes(ast.parse(file.read_text())):
    if isinstance(node, ast.Import):
      for alias in node.names:
        yield node.lineno, alias.name
    elif isinstance(node, ast.ImportFrom):
      above = package[: len(package) - node.level + 1] if node.level else []
      base = ".".join([*above, *filter(None, [node.module])])
      for alias in node.names:
        yield node.lineno, f"{base}.{alias.name}"
    elif (
      isinstance(node, ast.Call)
      and ast.unparse(node.func).endswith("import_module")
      and node.args
      and isinstance(node.args[0], ast.Constant)
    ):
      yield node.lineno, node.args[0].value


def test_every_room_is_in_the_table():
  assert {_room(file) for file in FILES} <= set(ARROWS)


@pytest.mark.parametrize("file", FILES, ids=_names)
def test_a_room_imports_only_what_the_table_allows(file):
  room = _room(file)
  allowed = {room, "__version__", *ARROWS[room]}
  for line, module in _imports(file):
    package, *rest = module.split(".")
    if package == "mmjax":
      assert not rest or rest[0] in allowed, (
        f"{_names(file)}:{line} imports {module}; {room} may import "
        f"{sorted(ARROWS[room]) or 'no other room'}"
      )


@pytest.mark.parametrize("folder", ["mmjax", "configs", "tests", "experiments"])
def test_nothing_imports_tensorflow(folder):
  for file in (ROOT / folder).rglob("*.py"):
    for line, module in _imports(file):
      assert module.split(".")[0] != "tensorflow", f"{_names(file)}:{line}"


def _required():
  """Distributions of the packages that setup.cfg asks for."""
  setup = configparser.ConfigParser()
  setup.read(ROOT / "setup.cfg")
  lines = setup["options"]["install_requires"].splitlines()
  lines += "\n".join(setup["options.extras_require"].values()).splitlines()
  lines = [line for line in lines if line and not line.startswith("#")]
  return {re.match(r"[\w.-]+", line).group().lower() for line in lines}


def test_everything_imported_is_required():
  required = _required()
  for file in FILES:
    for line, module in _imports(file):
      name = module.split(".")[0]
      if name in sys.stdlib_module_names or name in ("mmjax", "jaxlib"):
        continue
      wanted = DISTRIBUTIONS.get(name, name.replace("_", "-")).lower()
      assert {wanted, wanted.replace("-", "_")} & required, (
        f"{_names(file)}:{line} imports {name}, which setup.cfg lacks"
      )


def test_no_tensorflow_is_required():
  assert not [
    n
    for n in _required()
    if re.fullmatch(r"(tf|tensorflow).*", n) and n != "tensorflow-datasets"
  ]


def _modules():
  return [_module(f) for f in FILES if f.name != "__main__.py"]


@pytest.mark.parametrize("module", _modules())
def test_every_module_imports(module):
  importlib.import_module(module)


def test_training_needs_no_heavy_library():
  rooms = ("core", "sharding", "models", "objectives", "train", "finetune")
  modules = [_module(f) for f in FILES if _room(f) in rooms]
  code = f"""
import importlib, sys

class Refuse:
  def find_spec(self, name, path=None, target=None):
    if name.split(".")[0] in {HEAVY | {"tensorflow"}!r}:
      raise ImportError(name + " is imported with the train path")

sys.meta_path.insert(0, Refuse())
for module in {modules!r}:
  importlib.import_module(module)
"""
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["mmjax", "configs", "tests", "experiments"])
def test_no_file_has_a_name_that_says_nothing(folder):
  for path in (ROOT / folder).rglob("*"):
    stem = path.stem.removesuffix("_test")
    assert stem not in ("utils", "util", "common", "helpers", "misc"), path


def test_no_module_has_the_name_of_a_standard_module():
  for file in FILES:
    for name in _module(file).split(".")[1:]:
      assert name not in sys.stdlib_module_names, _names(file)


def test_git_ignores_no_source_file():
  if not (ROOT / ".git").exists():
    pytest.skip("not a git checkout")
  done = subprocess.run(
    ["git", "check-ignore", "--no-index", "--stdin"],
    input="\n".join(_names(f) for f in FILES),
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.stdout == ""
