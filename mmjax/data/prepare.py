"""Writes a data set as shards that training reads fast, in any order.

A shard holds a fixed range of the source's examples, and gets its name when it
is whole: so what was interrupted goes on, never writes an example twice, and
leaves no half shard that looks like one. Which duplicates are left out is
decided when all shards are there.
"""

import contextlib
import dataclasses
import errno
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data.files import prepared, records
from mmjax.data.prepare_example import PrepareOptions, make
from mmjax.data.sources import Source

PROGRESS = "progress.json"
SHARD_BYTES = 128 << 20  # About; by the first examples.
NUM_SAMPLED = 32
MAX_SHARD = 100_000  # Examples.


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What became of a split."""

  folder: Path
  written: int  # Examples that training reads.
  read: int
  left_out: Mapping[str, int]  # Why -> how many.


def prepare(
  source: Source,
  out: Path,
  *,
  name: str,
  split: str,
  options: PrepareOptions,
  workers: int = 2,
  on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
  """Writes a split; goes on where it was left.

  Args:
    source: examples of the split.
    out: folder of the data set; the split gets `<out>/<split>`.
    name: of the source, for the record.
    split: name of the split.
    options: what is made of the examples.
    workers: threads that read and encode.
    on_progress: told examples done, of how many.

  Raises:
    UserError: the folder holds something else, nothing could be used, or no
      space is left.
  """
  folder = out / split
  with _told_if_full(folder):
    return _prepare(folder, source, name, split, options, workers, on_progress)


def _prepare(
  folder: Path,
  source: Source,
  name: str,
  split: str,
  options: PrepareOptions,
  workers: int,
  on_progress: Callable[[int, int], None],
) -> Outcome:
  plan = _begin(folder, source, name, split, options)
  count = -(-len(source) // plan["shard_size"])
  shards = [
    folder / f"data-{i:05d}-of-{count:05d}.array_record" for i in range(count)
  ]
  with futures.ThreadPoolExecutor(max(1, workers)) as pool:
    for number, shard in enumerate(shards):
      start = number * plan["shard_size"]
      stop = min(start + plan["shard_size"], len(source))
      if not _about(shard).is_file():
        made = pool.map(lambda i: make(source, i, options), range(start, stop))
        _write_shard(shard, made)
      on_progress(stop, len(source))
  return _finish(folder, source, name, split, shards, options)


LABEL = "label"  # Field whose distinct texts are classes.
# No space, more than one is allowed to have, or larger than files may be.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def _told_if_full(folder: Path) -> Iterator[None]:
  try:
    yield
  except (OSError, RuntimeError) as e:
    # ArrayRecord tells by text alone.
    code = getattr(e, "errno", None)
    if code not in FULL and not any(os.strerror(c) in str(e) for c in FULL):
      raise
    raise errors.UserError(
      f"No space is left for {str(folder)!r}: {e}\nThe shards that are there "
      "are whole: make room and run the same command again to go on, or write "
      "elsewhere, or smaller pictures (--image_size)."
    ) from e


def _begin(folder, source, name, split, options) -> Mapping[str, Any]:
  """The plan of a split: as it was begun, or a new one."""
  asked = {
    "source": name,
    "split": split,
    "length": len(source),
    "options": dataclasses.asdict(options),
  }
  for file in (folder / PROGRESS, folder / prepared.FEATURES):
    if not file.is_file():
      continue
    there = json.loads(file.read_text("utf-8"))
    there = there.get("statistics", {}).get("plan", there)
    changed = [
      f"  {key}: {there.get(key)} -> {value}"
      for key, value in asked.items()
      if there.get(key) != value
    ]
    if changed:
      raise errors.UserError(
        f"{str(folder)!r} has something else in it:\n"
        + "\n".join(changed)
        + "\nChoose another --out, or remove that folder."
      )
    return there
  sizes = [
    len(records.pack(example))
    for i in range(min(NUM_SAMPLED, len(source)))
    if (example := make(source, i, options).example)
  ]
  mean = max(1, sum(sizes) // max(1, len(sizes)))
  plan = {**asked, "shard_size": min(MAX_SHARD, max(1, SHARD_BYTES // mean))}
  folder.mkdir(parents=True, exist_ok=True)
  _write_json(folder / PROGRESS, plan)
  return plan


def _write_shard(shard: Path, made) -> None:
  temporary = shard.with_suffix(".tmp")
  try:
    about = _write_records(temporary, made)
  except BaseException:
    temporary.unlink(missing_ok=True)  # It may be what fills the disk.
    raise
  temporary.replace(shard)
  _write_json(_about(shard), about)  # Last: it says that the shard is whole.


def _write_records(file: Path, made) -> dict[str, Any]:
  from array_record.python import array_record_module

  writer = array_record_module.ArrayRecordWriter(str(file), "group_size:1")
  left_out, first, hashes = Counter(), {}, []
  fields: Counter[str] = Counter()
  size = read = 0
  for item in made:
    read += 1
    if item.example is None:
      left_out[item.reason] += 1
      first.setdefault(item.reason, item.where)
      continue
    record = records.pack(item.example)
    writer.write(record)
    size += len(record)
    hashes.append((item.exact, item.similar))
    fields.update(
      f"{name}: {_kind(value)}" for name, value in item.example.items()
    )
  writer.close()
  return {
    "read": read,
    "bytes": size,
    "left_out": left_out,
    "first": first,
    "fields": fields,
    "hashes": hashes,
  }


def _about(shard: Path) -> Path:
  return shard.with_suffix(".json")


def _kind(value: Any) -> str:
  if isinstance(value, bytes):
    return "encoded bytes"
  if isinstance(value, str):
    return "text"
  if isinstance(value, (bool, int, float, np.generic)):
    return "number"
  return "array" if isinstance(value, np.ndarray) else "list"


def _class_names(source: Source) -> dict[str, tuple[str, ...]]:
  """Of what the source calls classes; of tables, the column `label`."""
  known = getattr(source, "class_names", {})
  names = {field: tuple(classes) for field, classes in known.items()}
  find = getattr(source, "find_classes", None)
  if find and LABEL not in names:
    with contextlib.suppress(errors.UserError):  # Numbers have no names.
      if found := find(LABEL):
        names[LABEL] = found
  return names


def _finish(folder, source, name, split, shards, options) -> Outcome:
  abouts = [json.loads(_about(s).read_text("utf-8")) for s in shards]
  counts = [len(a["hashes"]) for a in abouts]
  left_out: Counter[str] = Counter()
  fields: Counter[str] = Counter()
  for about in abouts:
    left_out.update(about["left_out"])
    fields.update(about["fields"])
  hashes = [tuple(pair) for about in abouts for pair in about["hashes"]]
  again = _duplicates(hashes)
  drop = again.get(options.duplicates, set())
  if drop:
    left_out[f"duplicate: {options.duplicates}"] += len(drop)
    kept = [i for i in range(len(hashes)) if i not in drop]
    temporary = folder / "kept.tmp.npy"
    np.save(temporary, np.asarray(kept, np.int64), allow_pickle=False)
    temporary.replace(folder / prepared.KEPT)
  written = len(hashes) - len(drop)
  if not written:
    raise errors.UserError(
      f"Not one of {len(source):,} examples of {name!r}, split {split!r}, can "
      f"be used: {dict(left_out)}."
    )
  features = prepared.Features(
    source=name,
    split=split,
    shards=tuple((s.name, c) for s, c in zip(shards, counts, strict=True)),
    num_examples=written,
    fields={k: v for k, v in (f.split(": ") for f in sorted(fields))},
    class_names=_class_names(source),
    statistics={
      "read": sum(a["read"] for a in abouts),
      "bytes": sum(a["bytes"] for a in abouts),
      "left_out": dict(left_out),
      "first_left_out": {k: v for a in abouts for k, v in a["first"].items()},
      "duplicates": {kind: len(found) for kind, found in again.items()},
      "plan": json.loads((folder / PROGRESS).read_text("utf-8"))
      if (folder / PROGRESS).is_file()
      else {},
    },
  )
  if not (folder / prepared.FEATURES).is_file():
    _write_json(folder / prepared.FEATURES, dataclasses.asdict(features))
  (folder / PROGRESS).unlink(missing_ok=True)
  return Outcome(folder, written, features.statistics["read"], left_out)


def _duplicates(hashes) -> dict[str, set[int]]:
  """Numbers of examples whose picture came before, by kind."""
  found: dict[str, set[int]] = {"exact": set(), "similar": set()}
  seen: set[str] = set()
  for i, (exact, similar) in enumerate(hashes):
    if exact in seen:
      found["exact"].add(i)
      found["similar"].add(i)
    elif similar and similar in seen:
      found["similar"].add(i)
    seen |= {exact, similar}
  return found


def _write_json(file: Path, content: Any) -> None:
  temporary = file.with_suffix(".partial")
  temporary.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
  temporary.replace(file)
