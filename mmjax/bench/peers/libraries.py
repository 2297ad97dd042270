"""Imports a peer's library, or says how to install it."""

import importlib
from collections.abc import Sequence
from typing import Any

from mmjax.bench.candidate import NotInstalled, Work
from mmjax.core import errors

INSTALL = "pip install 'mmjax[bench]'"
USE_TORCHVISION = ("timm", "open_clip", "transformers")


def load(name: str) -> Any:
  """Imports a module of a peer.

  Raises:
    NotInstalled: the module or one that it needs is missing.
  """
  library = name.split(".")[0]
  try:
    if library in USE_TORCHVISION:
      _import_torchvision()
    return importlib.import_module(name)
  except ImportError as e:
    raise NotInstalled(f"{library} is not installed ({e}): {INSTALL}") from e


def _import_torchvision() -> None:
  """Imports it, beside another build of torch too.

  Then its compiled operators are missing, and its import fails at those that
  it gives shapes. No peer calls any: it's enough to declare these. Where it
  imports by itself, nothing is declared.
  """
  try:
    importlib.import_module("torchvision")
  except ImportError:
    return  # Who cannot do without it says so.
  except RuntimeError as e:
    if "torchvision::nms does not exist" not in str(e):
      raise
    torch = importlib.import_module("torch")
    for name in ("nms", "qnms"):
      torch.library.define(
        f"torchvision::{name}",
        "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
      )
    importlib.import_module("torchvision")


def check_kind(peer: str, work: Work, kinds: Sequence[str]) -> None:
  """Refuses work that a peer has no model for.

  Raises:
    UserError: the work is of another kind.
  """
  if work.kind not in kinds:
    raise errors.UserError(
      f"The peer {peer} does {' and '.join(kinds)}, got a config of kind "
      f"{work.kind}."
    )
