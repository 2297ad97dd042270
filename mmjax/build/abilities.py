"""What a trained model can say, as its objectives tell."""

import inspect
from collections.abc import Mapping
from typing import Any

from mmjax.core import errors
from mmjax.objectives.classification import Classification
from mmjax.objectives.masked_lm import MaskedLM
from mmjax.objectives.multitask import Objectives

# What to do with a model instead, by what its objectives have.
OTHERS = (
  ("num_classes", "pick one of its classes: leave --objective out"),
  ("code_logits", "predict codes of hidden patches, by --out draw pictures"),
  ("negatives", "compare what it reads, as the evaluators 'retrieval' do"),
)


def find_decoding(
  objectives: Objectives, name: str = "", task: str = ""
) -> str:
  """The objective that has taught a decoder to say a text.

  Args:
    objectives: of the model.
    name: of the one wanted; "" = the only one.
    task: that it belongs to; "" = any.

  Raises:
    UserError: there is none, or there are several of different decoders.
  """
  known = {
    key: item.objective.decoding
    for key, item in objectives.items()
    if getattr(item.objective, "decoding", None) and task in ("", item.task)
  }
  if name:
    if name not in known:
      raise errors.unknown("objective that says a text", name, known)
    return name
  if not known:
    raise errors.UserError(_says_nothing(objectives))
  if len(set(known.values())) > 1:
    raise errors.UserError(
      f"Several objectives have learned to say a text: {sorted(known)}. Name "
      "one as 'objective'."
    )
  return next(iter(known))


def check_cache(name: str, decoder: Any) -> None:
  """Checks that a decoder, maybe of the user's own, can go on with a text.

  Raises:
    UserError: it takes no `cache_size`.
  """
  takes = inspect.signature(decoder.__call__).parameters
  anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
  if "cache_size" not in takes and not anything:
    raise errors.UserError(
      f"The decoder {name!r}, a {type(decoder).__name__}, can be trained but "
      "says no text: its __call__ has no 'cache_size', by which it would keep "
      "what it has read, as models.decoders.text.TextDecoder does."
    )


def find_classes(objectives: Objectives, name: str = "") -> str:
  """The objective that picks classes; "" if there is none of that name.

  Raises:
    UserError: there are several different ones and none is named.
  """
  known = {
    key: item.objective
    for key, item in objectives.items()
    if isinstance(item.objective, Classification) and name in ("", key)
  }
  # One that several tasks train is one.
  if len(set(known.values())) > 1:
    raise errors.UserError(
      f"Several objectives pick classes: {sorted(known)}. Name one as "
      "'objective'."
    )
  return next(iter(known), "")


def says_text(objectives: Objectives, name: str = "") -> bool:
  """Whether an objective, or the one of that name, says a text."""
  return any(
    getattr(item.objective, "decoding", None) and name in ("", key)
    for key, item in objectives.items()
  )


def _says_nothing(objectives: Objectives) -> str:
  kinds = {
    key: type(item.objective).__name__ for key, item in objectives.items()
  }
  can = [what for what in map(_other, objectives.values()) if what]
  instead = f" It can {', '.join(dict.fromkeys(can))}." if can else ""
  return (
    "This model has no decoder that has learned to say a text: its objectives "
    f"are {_listed(kinds)}.{instead} Train one with 'captioning', "
    "'conversation', 'prefix_lm', 'causal_lm' or 'vqa' with generate=True; "
    "'mmjax evaluate' measures this one."
  )


def _other(item: Any) -> str:
  for attribute, what in OTHERS:
    if hasattr(item.objective, attribute):
      return what
  if isinstance(item.objective, MaskedLM):
    return "predict hidden tokens, as the evaluator 'masked_prediction' shows"
  return ""


def _listed(kinds: Mapping[str, str]) -> str:
  return ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items())
