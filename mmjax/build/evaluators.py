"""Makes the evaluators; each opens its data only when it runs."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import ml_collections as mlc
import numpy as np

from mmjax.build.pipelines import class_facts, make_pipeline
from mmjax.build.plug_in import plug_in
from mmjax.core import errors
from mmjax.core.interfaces import ModelInfo
from mmjax.data import loader, pipeline
from mmjax.evaluators import EVALUATORS
from mmjax.objectives.multitask import Objectives


def make_evaluators(
  config: mlc.ConfigDict,
  objectives: Objectives,
  info: ModelInfo,
  batch_size: int,
) -> dict[str, Any]:
  """The evaluators by name; each opens its data only when it runs."""
  return {
    name: _make_evaluator(config, name, section, objectives, info, batch_size)
    for name, section in config.evaluators.items()
  }


def _make_evaluator(config, name, section, objectives, info, batch_size):
  if section.task and section.task not in config.tasks:
    raise errors.unknown(
      f"task of evaluators.{name}", section.task, config.tasks
    )
  task = config.tasks[section.task].data if section.task else {}
  main = make_pipeline(config, task, section.data)
  plain_objectives = {
    k: v.objective
    for k, v in objectives.items()
    if section.task in ("", v.task)
  }
  facts = {
    "batches": Passes(main, batch_size),
    "tokenizer": main.tokenizer,
    **class_facts(main),
    "objectives": plain_objectives,
    "chance": {
      k: v.chance(info, batch_size) for k, v in plain_objectives.items()
    },
  }
  skip = ["every_steps", "data", "task"]
  for key, value in section.items():
    # `gallery_data` becomes the argument `gallery_batches`.
    if key.endswith("_data"):
      skip.append(key)
      facts[f"{key.removesuffix('_data')}_batches"] = Passes(
        make_pipeline(config, task, value), batch_size
      )
  return plug_in(
    "evaluator", f"evaluators.{name}", section, EVALUATORS, facts, tuple(skip)
  )


@dataclasses.dataclass(frozen=True)
class Passes:
  """Makes a fresh pass over a pipeline's examples whenever it is called."""

  source: pipeline.Pipeline
  batch_size: int

  def __call__(self) -> Iterator[dict[str, np.ndarray]]:
    return loader.eval_batches(self.source, batch_size=self.batch_size)
