"""Writes what evaluators made to look at: one JSON file per artifact.

Pictures are PNG in base64 inside of it, so a file is whole by itself and the
report, which knows files only, needs nothing else.
"""

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjax.core.interfaces import Artifact


def write(artifact: Artifact, folder: Path, evaluator: str) -> Path:
  """Writes `<folder>/<evaluator>.<name>.json`, atomically."""
  content = {
    "evaluator": evaluator,
    "name": artifact.name,
    "kind": artifact.kind,
    "title": artifact.title,
    "caption": artifact.caption,
    "data": encode(artifact.data),
  }
  path = folder / f"{evaluator}.{artifact.name}.json"
  temporary = path.with_suffix(".tmp")
  temporary.write_text(json.dumps(content, allow_nan=False))
  temporary.replace(path)
  return path


def encode(value: Any) -> Any:
  """Turns data into what JSON has; a uint8 `h w c` becomes `{"png": ...}`."""
  if isinstance(value, Mapping):
    return {str(k): encode(v) for k, v in value.items()}
  if isinstance(value, np.ndarray):
    if value.dtype == np.uint8 and value.ndim >= 3:
      return _pictures(value)
    return value.tolist()
  if isinstance(value, (list, tuple)):
    return [encode(v) for v in value]
  return value.item() if isinstance(value, np.generic) else value


def _pictures(array: np.ndarray) -> Any:
  if array.ndim > 3:
    return [_pictures(a) for a in array]
  file = io.BytesIO()
  Image.fromarray(array).save(file, "PNG")
  return {"png": base64.b64encode(file.getvalue()).decode("ascii")}
