"""Evaluators of a config, run during training or on a checkpoint."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections as mlc

from mmjax.build import evaluators as evaluators_lib
from mmjax.build import experiment as experiment_lib
from mmjax.core import errors
from mmjax.evaluators import artifacts

FOLDER = "evaluations"


class Evaluation:
  """Runs evaluators and writes what they find into the workdir."""

  def __init__(
    self,
    config: mlc.ConfigDict,
    experiment: experiment_lib.Experiment,
    workdir: Path,
  ):
    self._workdir = workdir
    self._predict = experiment.predictor
    self._evaluators = evaluators_lib.make_evaluators(
      config,
      experiment.parts.objectives,
      experiment.parts.info,
      experiment.batch_size,
      experiment,
    )
    self._periods = {
      name: config.evaluators[name].every_steps for name in self._evaluators
    }

  def due(self, step: int, last: bool) -> list[str]:
    """Names of the evaluators that run after `step`."""
    if last:
      return list(self._evaluators)
    return [n for n, e in self._periods.items() if e and step % e == 0]

  def run(
    self,
    variables: Mapping[str, Any],
    step: int,
    names: Sequence[str] | None = None,
    *,
    pictures: bool,
  ) -> dict[str, float]:
    """Runs evaluators; returns and writes `{"evaluator/metric": value}`."""
    results: dict[str, float] = {}
    folder = self._folder(step)
    writes = jax.process_index() == 0  # All processes have the same results.
    for name in names if names is not None else self._evaluators:
      evaluator = self._evaluators[name]
      for metric, value in evaluator.run(self._predict, variables):
        results[f"{name}/{metric}"] = float(value)
      if bad := num_bad(evaluator):
        results[f"{name}/bad_examples"] = float(bad)
      if pictures and hasattr(evaluator, "pictures"):
        for artifact in evaluator.pictures(self._predict, variables):
          if writes:
            folder.mkdir(parents=True, exist_ok=True)
            artifacts.write(artifact, folder, name)
    if writes:
      self._write(results, step)
    return results

  def _write(self, results: Mapping[str, float], step: int) -> None:
    folder = self._folder(step)
    folder.mkdir(parents=True, exist_ok=True)
    known = self.read_results(step) | results
    temporary = folder / "metrics.tmp"
    temporary.write_text(json.dumps(known, indent=2, sort_keys=True))
    temporary.replace(folder / "metrics.json")

  def read_results(self, step: int) -> dict[str, float]:
    """What was written for a step; nothing if it was not evaluated."""
    path = self._folder(step) / "metrics.json"
    return json.loads(path.read_text()) if path.exists() else {}

  def check_names(self, names: Sequence[str]) -> None:
    """Raises `UserError` for a name that no evaluator has."""
    for name in names:
      if name not in self._evaluators:
        raise errors.unknown("evaluator", name, self._evaluators)

  def _folder(self, step: int) -> Path:
    return self._workdir / FOLDER / f"{step:08d}"


def num_bad(evaluator: Any) -> int:
  """Examples that an evaluator left out so far, since they are broken."""
  passes = [
    v for v in vars(evaluator).values() if isinstance(v, evaluators_lib.Passes)
  ]
  return sum(len(item.source.bad) for item in passes)
