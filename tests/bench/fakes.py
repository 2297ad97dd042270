"""Candidates without a model, which processes of a bench can import."""

import os
from pathlib import Path

import numpy as np

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


class Writer:
  """Writes to a file what is done with it, a line each."""

  def __init__(self, name: str, file: Path):
    self.facts = {}
    self._name, self._file = name, file
    self._say("made")

  def sample(self, secs: float) -> float:
    self._say(f"starts {secs:g}")
    self._say("ends")
    return 1.0

  def close(self) -> None:
    self._say("closed")

  def _say(self, what):
    with self._file.open("a") as opened:
      opened.write(f"{self._name} {what}\n")


GROWTH = 1 << 28  # Bytes.


class Large(Sampler):
  """Takes memory as it is made."""

  def __init__(self):
    super().__init__(1.0)
    self.taken = np.ones(GROWTH, np.uint8)


class Fails(Sampler):
  """Its second sample fails."""

  def sample(self, secs: float) -> float:
    if self._count:
      raise ValueError("out of luck")
    return super().sample(secs)


def not_installed():
  raise NotInstalled("not installed: pip install fake")


def cannot():
  raise errors.UserError("fake does nothing")


def breaks():
  raise KeyError("broken")


def dies():
  os._exit(9)
