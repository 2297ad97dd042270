"""How tasks meet and what each objective counts, from a config."""

import math
from collections.abc import Mapping
from typing import Any

import ml_collections as mlc

from mmjax.build import settings as settings_lib
from mmjax.build.plug_in import plain, plug_in
from mmjax.core import errors, piecewise, registry
from mmjax.core.piecewise import Piecewise
from mmjax.data import mixture, pipeline
from mmjax.objectives import WEIGHTINGS, weighting
from mmjax.objectives.multitask import Objectives


def number(path: str, value: Any) -> float | Piecewise:
  """A number >= 0 of a config, or one that changes over training.

  Raises:
    UserError: it is none, or below zero.
  """
  if isinstance(value, Mapping | mlc.ConfigDict):
    fields = plain(value)
    kind = fields.pop("name", "")
    return registry.construct(path, Piecewise, fields, kind=kind)
  return constant(path, value)


def constant(path: str, value: Any) -> float:
  """A number >= 0 of a config.

  Raises:
    UserError: it is none, or below zero.
  """
  whole_or_not = isinstance(value, int | float) and not isinstance(value, bool)
  if not whole_or_not or not 0.0 <= value < math.inf:
    raise errors.UserError(f"config.{path}={value!r}, expected a number >= 0.")
  return float(value)


def make_mixture(
  config: mlc.ConfigDict,
  pipelines: Mapping[str, pipeline.Pipeline],
  objectives: Objectives,
) -> mixture.Mixture:
  """How the tasks meet.

  Raises:
    UserError: rates that are negative, all zero, or of no effect; a task that
      is drawn though nothing in it counts.
  """
  rates = {
    name: number(f"tasks.{name}.rate", task.rate)
    for name, task in config.tasks.items()
  }
  settings = settings_lib.settings(config, "mixing")
  if config.mixture == "sum":
    _check_no_rates(rates, settings)
    return mixture.Sum(tuple(sorted(pipelines)))
  for task, rate in rates.items():
    counting = [
      name
      for name, item in objectives.items()
      if item.task == task and piecewise.highest(item.weight) > 0.0
    ]
    if piecewise.highest(rate) > 0.0 and not counting:
      raise errors.UserError(
        f"config.tasks.{task}.rate={rate}, but the weights of all its "
        "objectives are zero: its steps would learn nothing. Set the rate or "
        "a weight."
      )
  if settings.rates == "proportional":
    sizes = {name: len(source) for name, source in pipelines.items()}
    rates = mixture.sized(rates, sizes, settings.temperature)
  return mixture.Sample(rates, settings_lib.settings(config, "train").seed)


def _check_no_rates(rates, settings):
  changed = [name for name, rate in rates.items() if rate != 1.0]
  what = f"tasks.{changed[0]}.rate={rates[changed[0]]}" if changed else ""
  if settings != settings_lib.MixingSettings():
    what = f"mixing.rates={settings.rates!r}"
  if what:
    raise errors.UserError(
      f"config.{what} changes nothing with config.mixture='sum', which takes "
      "every task in every step. Set mixture='sample', or weights instead."
    )


def make_weighting(
  config: mlc.ConfigDict, objectives: Objectives
) -> weighting.Weighting:
  """How much each objective counts, beside the weights of the config.

  Raises:
    UserError: it names no objective or one that never counts, or needs what
      the config does not give.
  """
  name = config.weighting.name
  made = plug_in("weighting", "weighting", config.weighting, WEIGHTINGS, {})
  covered = weighting.covered(made, objectives)
  if not made.shared:
    return made
  accumulate = settings_lib.settings(config, "train").accumulate
  compares = f"config.weighting.name={name!r} compares the gradients of all "
  if config.mixture == "sample" and len(config.tasks) > 1:
    raise errors.UserError(
      f"{compares}objectives in each step, but mixture='sample' has those of "
      "one task. Set mixture='sum', or another weighting."
    )
  if accumulate > 1:
    raise errors.UserError(
      f"{compares}objectives over the whole batch, but train.accumulate="
      f"{accumulate}. Set it to 1, or use another weighting."
    )
  if len(covered) < 2:
    raise errors.UserError(
      f"{compares}objectives, but there is only {covered}."
    )
  return made
