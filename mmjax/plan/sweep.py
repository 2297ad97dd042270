"""Tries meshes, remat policies and batch sizes, and ranks those that fit."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import ml_collections as mlc

from mmjax.build import experiment as experiment_lib
from mmjax.core import errors
from mmjax.plan import compile as compile_lib
from mmjax.plan.compile import Plan
from mmjax.plan.topologies import Topology


@dataclasses.dataclass(frozen=True)
class Candidate:
  """One choice; the rest is as the config has it."""

  fsdp: int
  tensor: int
  remat: str
  batch_size: int

  def __str__(self) -> str:
    return (
      f"fsdp {self.fsdp}, tensor {self.tensor}, remat {self.remat}, batch "
      f"{self.batch_size:,}"
    )

  @property
  def rules(self) -> str:
    """The table that such a mesh asks for."""
    if self.tensor > 1:
      return "fsdp_tensor"
    return "fsdp" if self.fsdp > 1 else "data_parallel"


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a candidate."""

  candidate: Candidate
  plan: Plan | None = None
  refused: str = ""  # Why it was not planned.


@dataclasses.dataclass(frozen=True)
class Grid:
  """What to try; all combinations."""

  fsdp: Sequence[int]
  tensor: Sequence[int]
  remat: Sequence[str]
  batch_size: Sequence[int]

  def candidates(self) -> list[Candidate]:
    """Smaller batches first: what they do not fit, larger ones do not."""
    return [
      Candidate(*choice)
      for choice in itertools.product(
        self.fsdp, self.tensor, self.remat, sorted(self.batch_size)
      )
    ]


def run(
  config: mlc.ConfigDict, topology: Topology, grid: Grid
) -> Iterator[Outcome]:
  """Plans one candidate after the other, as they are ready.

  Raises:
    UserError: an unknown remat policy.
  """
  too_large: set[tuple[int, int, str]] = set()
  candidates = grid.candidates()
  configs = [changed(config, candidate) for candidate in candidates]
  for candidate, chosen in zip(candidates, configs, strict=True):
    same = (candidate.fsdp, candidate.tensor, candidate.remat)
    if same in too_large:
      yield Outcome(candidate, refused="a smaller batch does not fit")
      continue
    try:
      plan = compile_lib.plan(chosen, topology)
    except errors.UserError as e:
      yield Outcome(candidate, refused=str(e))
      continue
    if not plan.fits:
      too_large.add(same)
    yield Outcome(candidate, plan)


def changed(config: mlc.ConfigDict, candidate: Candidate) -> mlc.ConfigDict:
  """The config as a candidate has it; what is left of the mesh is `data`."""
  config = experiment_lib.with_remat(config, candidate.remat)
  config.mesh.update(
    data=-1,
    fsdp=candidate.fsdp,
    tensor=candidate.tensor,
    rules=candidate.rules,
  )
  config.train.batch_size = candidate.batch_size
  return config


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
  """Those that fit, most examples a second first."""
  fitting = [o for o in outcomes if o.plan and o.plan.fits]
  return sorted(fitting, key=lambda o: -o.plan.examples_per_sec)
