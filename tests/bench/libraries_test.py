import sys
from types import SimpleNamespace

import pytest

from mmjax.bench.candidate import NotInstalled
from mmjax.bench.peers import libraries

# As its import fails beside another build of torch: at the first operator that
# it gives a shape and that nothing has declared.
UNPAIRED = """
import torch

for name in ("torchvision::nms", "torchvision::qnms"):
  if name not in torch.declared:
    raise RuntimeError(f"operator {name} does not exist")
"""
MISMATCH = """
raise RuntimeError("PyTorch and torchvision have different CUDA versions")
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
  """`installed(torchvision, timm)`: modules of these texts.

  Returns the operators that are declared to its torch, by name.
  """
  declared = {}
  torch = SimpleNamespace(
    declared=declared, library=SimpleNamespace(define=declared.setdefault)
  )
  monkeypatch.setitem(sys.modules, "torch", torch)
  for name in ("torchvision", "timm"):
    monkeypatch.delitem(sys.modules, name, raising=False)
  monkeypatch.syspath_prepend(tmp_path)

  def write(torchvision, timm="import torchvision"):
    (tmp_path / "torchvision.py").write_text(torchvision)
    (tmp_path / "timm.py").write_text(timm)
    return declared

  yield write
  for name in ("torchvision", "timm"):
    sys.modules.pop(name, None)  # Real ones are put back after this.


def test_operators_are_declared_that_torchvision_lacks(installed):
  declared = installed(UNPAIRED)
  assert libraries.load("timm").torchvision
  assert sorted(declared) == ["torchvision::nms", "torchvision::qnms"]


def test_nothing_is_declared_where_torchvision_imports(installed):
  declared = installed("")
  assert libraries.load("timm").torchvision
  assert not declared


def test_another_error_of_torchvision_is_passed_on(installed):
  declared = installed(MISMATCH)
  with pytest.raises(RuntimeError, match="different CUDA"):
    libraries.load("timm")
  assert not declared


def test_without_torchvision_only_who_needs_it_is_refused(installed):
  missing = "raise ImportError('No module named torchvision')"
  installed(missing, timm="")
  libraries.load("timm")
  sys.modules.pop("timm")
  installed(missing, timm="import torchvision  # It does need it.")
  with pytest.raises(NotInstalled, match="torchvision.*pip install"):
    libraries.load("timm")
