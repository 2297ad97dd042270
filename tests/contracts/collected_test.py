import fnmatch
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_pytest_looks_into_every_folder(pytestconfig):
  left_out = pytestconfig.getini("norecursedirs")
  folders = {p.parent.relative_to(TESTS) for p in TESTS.rglob("*_test.py")}

  assert Path("build") in folders  # Which pytest leaves out by default.
  for folder in folders:
    for part in folder.parts:
      assert not any(fnmatch.fnmatch(part, p) for p in left_out), folder


def test_every_file_that_has_tests_is_collected(pytestconfig):
  (pattern,) = pytestconfig.getini("python_files")
  for path in TESTS.rglob("*.py"):
    if "\ndef test_" in path.read_text():
      assert fnmatch.fnmatch(path.name, pattern), path
