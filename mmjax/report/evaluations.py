"""Reads `evaluations/<step>/`: numbers in metrics.json, artifacts beside it."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmjax.report import formats

FOLDER = "evaluations"
METRICS_FILE = "metrics.json"


@dataclasses.dataclass(frozen=True)
class Result:
  """What one evaluator measured, at the newest step at which it ran."""

  evaluator: str
  step: int
  metrics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Artifact:
  """Something that an evaluator made to look at, as it lies on the disk."""

  evaluator: str
  name: str
  kind: str
  title: str
  caption: str
  data: Mapping[str, Any]
  step: int


def read(
  run: Path,
) -> tuple[tuple[Result, ...], tuple[Artifact, ...], tuple[str, ...]]:
  """Reads the newest results and artifacts of each evaluator.

  Returns:
    Results, artifacts, and notes about what could not be read.
  """
  results: dict[str, Result] = {}
  artifacts: dict[str, list[Artifact]] = {}
  notes: list[str] = []
  for step, folder in _steps(run):
    for evaluator, metrics in _metrics(folder, notes).items():
      results.setdefault(evaluator, Result(evaluator, step, metrics))
    found = _artifacts(folder, step, notes)
    for evaluator in sorted({a.evaluator for a in found} - artifacts.keys()):
      artifacts[evaluator] = [a for a in found if a.evaluator == evaluator]
  newest_first = [a for group in artifacts.values() for a in group]
  return tuple(results.values()), tuple(newest_first), tuple(notes)


def _steps(run: Path) -> list[tuple[int, Path]]:
  """Folders of evaluated steps, newest first."""
  folders = [f for f in (run / FOLDER).glob("*") if f.is_dir()]
  steps = [(int(f.name), f) for f in folders if f.name.isdecimal()]
  return sorted(steps, reverse=True)


def _metrics(folder, notes):
  """`{"evaluator/metric": value}` by evaluator."""
  path = folder / METRICS_FILE
  if not path.exists():
    return {}
  content = _json_object(path, notes)
  groups: dict[str, dict[str, float]] = {}
  for name in sorted(content or {}, key=_natural):
    evaluator, _, metric = name.partition("/")
    value = formats.number(content[name])
    if value is not None:
      groups.setdefault(evaluator, {})[metric or evaluator] = value
  return groups


def _natural(name):
  """Sorts R@5 before R@10."""
  return [
    part.zfill(12) if part.isdecimal() else part
    for part in re.split(r"(\d+)", name)
  ]


def _artifacts(folder, step, notes):
  found = []
  for path in sorted(folder.glob("*.json")):
    if path.name == METRICS_FILE:
      continue
    content = _json_object(path, notes)
    if content is None:
      continue
    evaluator, _, name = path.stem.partition(".")
    data = content.get("data")
    found.append(
      Artifact(
        evaluator=str(content.get("evaluator", evaluator)),
        name=str(content.get("name", name)),
        kind=str(content.get("kind", "")),
        title=str(content.get("title", name)),
        caption=str(content.get("caption", "")),
        data=data if isinstance(data, dict) else {},
        step=step,
      )
    )
  return found


def _json_object(path, notes):
  """The object in a file; None, and a note, if there is none."""
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError) as e:
    notes.append(f"{_short(path)} could not be read ({e}); it is left out.")
    return None
  if not isinstance(content, dict):
    notes.append(f"{_short(path)} is no JSON object; it is left out.")
    return None
  return content


def _short(path):
  return "/".join(path.parts[-3:])
