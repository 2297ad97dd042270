"""The starter set, prepared once for all tests of this room."""

import os

import pytest


@pytest.fixture(scope="session")
def starter_path(tmp_path_factory) -> str:
  """A folder for prepared starter tables, shared by parallel workers."""
  base = tmp_path_factory.getbasetemp()
  if "PYTEST_XDIST_WORKER" in os.environ:
    base = base.parent
  return str(base / "starter")
