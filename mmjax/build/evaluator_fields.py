"""Checks that an evaluator's data have what it reads, before the run starts."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from mmjax.build.plug_in import Section
from mmjax.core import errors, registry
from mmjax.core.interfaces import ModelInfo
from mmjax.data import pipeline
from mmjax.evaluators import EVALUATORS

# What the data say only if they have a field.
FIELD_OF_FACT = {
  "class_names": "label",
  "num_classes": "label",
  "tokenizer": "text",
}
# Groups of `config.data` that make the fields whose names begin like theirs.
SECTIONS = ("answer", "audio", "image", "label", "text", "video")
MAX_TRIES = 100  # Examples of which one has to be good.


def check_facts(
  name: str,
  section: Section,
  facts: Mapping[str, Any],
  source: pipeline.Pipeline,
) -> None:
  """Checks that an evaluator can be made.

  Args:
    name: of the evaluator in the config.
    section: that describes it.
    facts: what it can be given.
    source: its data.

  Raises:
    UserError: its data lack a field without which it has no use, or the
      config lacks other data that it needs.
  """
  factory = registry.lookup("evaluator", section["name"], EVALUATORS)
  for key, parameter in inspect.signature(factory).parameters.items():
    given = key in section or facts.get(key) is not None
    if given or parameter.default is not inspect.Parameter.empty:
      continue
    if key in FIELD_OF_FACT:
      raise _lacking(name, section, FIELD_OF_FACT[key], source, source.specs)
    if key.endswith("_batches"):
      data = f"{key.removesuffix('_batches')}_data"
      raise errors.UserError(
        f"config.evaluators.{name} ({section['name']!r}) needs more data: set "
        f"config.evaluators.{name}.{data}, e.g. to dict(split='train')."
      )


def check_fields(
  name: str, section: Section, evaluator: Any, info: ModelInfo
) -> None:
  """Checks each field that an evaluator says it reads.

  Raises:
    UserError: names evaluator, field, data set and split.
  """
  for passes, fields in _reads(evaluator, info).items():
    source = getattr(evaluator, passes).source
    have: Iterable[str] = source.specs
    for field in fields:
      if field not in have:
        have = {*have, *_texts(source)}  # Evaluators see the source's too.
      if field not in have:
        raise _lacking(name, section, field, source, have)


def _reads(evaluator: Any, info: ModelInfo) -> dict[str, tuple[str, ...]]:
  """Fields by the name of the argument that gives the data."""
  reads = dict(evaluator.reads()) if hasattr(evaluator, "reads") else {}
  decoding = getattr(getattr(evaluator, "generate", None), "decoding", None)
  if decoding is not None:  # What the text is said of.
    reads["batches"] = (*reads.get("batches", ()), *decoding.given)
  if hasattr(evaluator, "objectives"):
    names = getattr(evaluator, "names", ()) or getattr(evaluator, "only", ())
    fields = [
      field
      for objective_name, objective in evaluator.objectives.items()
      if not names or objective_name in names
      for field in objective.fields(info)
    ]
    reads["batches"] = (*reads.get("batches", ()), *fields)
  return reads


def _texts(source: pipeline.Pipeline) -> set[str]:
  """Fields of the source itself that come along in evaluation."""
  for index in range(min(MAX_TRIES, len(source))):
    example = source.try_example(index, 0, 0, False)
    if example is not None:
      return set(example)
  return set()


def _lacking(name, section, field, source, have):
  group = field.partition("_")[0]  # `text_hidden` comes of config.data.text.
  advice = ""
  if group in SECTIONS:
    advice = (
      f" Set it up in config.data.{group}, or for this evaluator alone in "
      f"config.evaluators.{name}.data.{group}."
    )
  return errors.UserError(
    f"config.evaluators.{name} ({section['name']!r}) reads the field "
    f"{field!r}, which its data ({source.name!r}, split {source.split!r}) "
    f"lack.{errors.nearest(field, have)} They have {sorted(have)}.{advice}"
  )
