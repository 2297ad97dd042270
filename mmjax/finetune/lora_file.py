"""What fine-tuning learned, in one file, without the base that it stands on.

A safetensors file with every array that was trained, adapters and what was
trained beside them, and a JSON text under the key "mmjax" of its metadata.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from mmjax.core import errors, trees
from mmjax.finetune import lora as lora_lib

KEY, FORMAT = "mmjax", 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
  """Of such a file."""

  arrays: Mapping[str, np.ndarray]  # By name of the parameter.
  lora: lora_lib.Lora
  base: str  # Fingerprint of all other parameters, see `fingerprint`.
  origin: str = ""  # Where these came from, in words.


def fingerprint(params: Any) -> str:
  """A hash of names and numbers; their order does not matter."""
  digest = hashlib.sha256()
  for name, leaf in sorted(trees.flatten(params).items()):
    array = np.ascontiguousarray(np.asarray(leaf))
    digest.update(f"{name} {array.shape} {array.dtype}\n".encode())
    digest.update(array.tobytes())
  return digest.hexdigest()[:16]


def save(path: Path, contents: Contents) -> None:
  """Writes a file; what stood there is replaced in one go."""
  meta = {
    "format": FORMAT,
    "lora": dataclasses.asdict(contents.lora),
    "base": contents.base,
    "origin": contents.origin,
  }
  arrays = {n: np.ascontiguousarray(x) for n, x in contents.arrays.items()}
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_suffix(".tmp")
  safetensors.numpy.save_file(
    arrays, temporary, metadata={KEY: json.dumps(meta, sort_keys=True)}
  )
  temporary.replace(path)


def load(path: Path) -> Contents:
  """Reads a file.

  Raises:
    UserError: no such file, or not one that `save` wrote.
  """
  if not path.is_file():
    raise errors.UserError(
      f"No LoRA file at {str(path)!r}; `mmjax weights lora --workdir=W "
      "--out=F.safetensors` writes one."
    )
  try:
    with safetensors.safe_open(path, framework="numpy") as file:
      text = (file.metadata() or {}).get(KEY)
      # From the file's own list: a tensor of any name may stand there.
      arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as e:
    raise errors.UserError(f"{str(path)!r} is no safetensors file: {e}") from e
  if text is None:
    raise errors.UserError(
      f"{str(path)!r} is a safetensors file, but not one of `mmjax weights "
      f"lora`: its metadata lacks {KEY!r}."
    )
  meta = json.loads(text)
  if meta["format"] != FORMAT:
    raise errors.UserError(
      f"{str(path)!r} has the format {meta['format']}, this mmjax reads "
      f"{FORMAT}."
    )
  section = {**meta["lora"], "targets": tuple(meta["lora"]["targets"])}
  return Contents(
    arrays=arrays,
    lora=lora_lib.Lora(**section),
    base=meta["base"],
    origin=meta["origin"],
  )
