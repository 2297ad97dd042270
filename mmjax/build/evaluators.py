"""Makes the evaluators; each opens its data only when it runs."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import ml_collections as mlc
import numpy as np

from mmjax.build import evaluator_fields
from mmjax.build import experiment as experiment_lib
from mmjax.build.generation import GenerationSettings, Generator
from mmjax.build.pipelines import class_facts, make_pipeline
from mmjax.build.plug_in import plain, plug_in
from mmjax.core import errors, registry
from mmjax.core.interfaces import ModelInfo
from mmjax.data import loader, pipeline
from mmjax.evaluators import EVALUATORS
from mmjax.objectives.multitask import Objectives


def make_evaluators(
  config: mlc.ConfigDict,
  objectives: Objectives,
  info: ModelInfo,
  batch_size: int,
  experiment: experiment_lib.Experiment | None = None,
) -> dict[str, Any]:
  """The evaluators by name; each opens its data only when it runs.

  `experiment` is for those that take `generate`: texts that its model says.
  """
  return {
    name: _make_evaluator(
      config, name, section, objectives, info, batch_size, experiment
    )
    for name, section in config.evaluators.items()
  }


def _make_evaluator(
  config, name, section, objectives, info, batch_size, experiment
):
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
  factory = registry.lookup("evaluator", section.name, EVALUATORS)
  if "generate" in (registry.field_names(factory) or ()):
    skip.append("generation")
    if experiment is not None:
      facts["generate"] = _make_generator(name, section, experiment)
  for key, value in section.items():
    # `gallery_data` becomes the argument `gallery_batches`.
    if key.endswith("_data"):
      skip.append(key)
      facts[f"{key.removesuffix('_data')}_batches"] = Passes(
        make_pipeline(config, task, value), batch_size
      )
  evaluator_fields.check_facts(name, section, facts, main)
  made = plug_in(
    "evaluator", f"evaluators.{name}", section, EVALUATORS, facts, tuple(skip)
  )
  evaluator_fields.check_fields(name, section, made, info)
  return made


def _make_generator(name, section, experiment):
  """What says texts as the evaluator's `generation` asks for."""
  fields = {
    key: tuple(value) if isinstance(value, list) else value
    for key, value in plain(section.generation).items()
  }
  path = f"evaluators.{name}.generation"
  settings = registry.construct(path, GenerationSettings, fields)
  return Generator(experiment, settings, task=section.task)


@dataclasses.dataclass(frozen=True)
class Passes:
  """Makes a fresh pass over a pipeline's examples whenever it is called."""

  source: pipeline.Pipeline
  batch_size: int

  def __call__(self) -> Iterator[dict[str, np.ndarray]]:
    return loader.eval_batches(self.source, batch_size=self.batch_size)
