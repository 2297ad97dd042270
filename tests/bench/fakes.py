"""Candidates without a model, which processes of a bench can import."""

import os

from mmjax.bench.candidate import NotInstalled
from mmjax.core import errors


class Sampler:
  """Counts its samples: the n-th is n times its speed."""

  def __init__(self, speed: float):
    self.facts = {"speed": speed, "tunables": os.environ.get("MMJAX_FAKE", "")}
    self._speed, self._count = speed, 0

  def sample(self, secs: float) -> float:
    self._count += 1
    return self._count * self._speed

  def close(self) -> None:
    pass


def not_installed():
  raise NotInstalled("not installed: pip install fake")


def cannot():
  raise errors.UserError("fake does nothing")


def breaks():
  raise KeyError("broken")


def dies():
  os._exit(9)
