"""Writes a data set as shards that training reads fast, in any order.

A shard holds a fixed range of the source's examples, and gets its name when it
is whole: so what was interrupted goes on, never writes an example twice, and
leaves no half shard that looks like one. Which duplicates are left out is
decided when all shards are there.
"""

import contextlib
import dataclasses
import errno
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmjax.core import errors
from mmjax.data import broken
from mmjax.data.files import media, prepared, records
from mmjax.data.sources import Source
from mmjax.data.transforms import audio, image, video

PROGRESS = "progress.json"
SHARD_BYTES = 128 << 20  # About; by the first examples.
NUM_SAMPLED = 32
MAX_SHARD = 100_000  # Examples.
JPEG_QUALITY = 95
DUPLICATES = ("keep", "exact", "similar")
SCRIPTS = {  # Language of script -> ranges of its letters.
  "latin": ((0x41, 0x24F),),
  "cyrillic": ((0x400, 0x52F),),
  "han": ((0x3400, 0x9FFF),),
  "kana": ((0x3040, 0x30FF),),
  "hangul": ((0xAC00, 0xD7AF),),
  "arabic": ((0x600, 0x6FF),),
  "devanagari": ((0x900, 0x97F),),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
  """What is made of each example, and which are left out.

  Raises:
    UserError: a number outside its domain, or an unknown name.
  """

  image_size: int = 0  # Shorter side of pictures that are larger; 0 = as is.
  duplicates: str = "keep"  # Or "exact" or "similar" pictures are left out.
  min_text: int = 0  # Characters of the caption.
  max_text: int = 0  # 0 = any number.
  script: str = ""  # At least half of the letters are of it, see `SCRIPTS`.
  max_aspect: float = 0.0  # Longer by shorter side; 0 = any.
  text: str = "text"  # Field that these look at.

  def __post_init__(self):
    if self.duplicates not in DUPLICATES:
      raise errors.unknown(
        "treatment of duplicates", self.duplicates, DUPLICATES
      )
    if self.script and self.script not in SCRIPTS:
      raise errors.unknown("script", self.script, SCRIPTS)
    for name in ("image_size", "min_text", "max_text", "max_aspect"):
      if getattr(self, name) < 0:
        raise errors.UserError(f"{name}={getattr(self, name)}, expected >= 0.")


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
        made = pool.map(lambda i: _make(source, i, options), range(start, stop))
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
    if (example := _make(source, i, options).example)
  ]
  mean = max(1, sum(sizes) // max(1, len(sizes)))
  plan = {**asked, "shard_size": min(MAX_SHARD, max(1, SHARD_BYTES // mean))}
  folder.mkdir(parents=True, exist_ok=True)
  _write_json(folder / PROGRESS, plan)
  return plan


@dataclasses.dataclass(frozen=True)
class Made:
  """An example as it is written, or why it is not."""

  example: Mapping[str, Any] | None
  reason: str = ""
  where: str = ""
  exact: str = ""  # Hash of the picture's bytes, or of the whole example.
  similar: str = ""  # Difference hash of the picture.


def _make(source: Source, index: int, options: PrepareOptions) -> Made:
  where = f"[{index}]"
  try:
    example = dict(source[index])
    where = str(example.get("key", example.get("__key__", where)))
    picture = _check_media(example, options)
  except errors.UserError:
    raise
  except Exception as e:  # What is damaged raises nearly anything.
    reason = str(e) if isinstance(e, ValueError) else f"{type(e).__name__}: {e}"
    return Made(None, f"broken: {broken.kind(reason)}", where)
  if reason := _filtered(example, picture, options):
    return Made(None, reason, where)
  return Made(example, "", where, _hash(example), _difference_hash(picture))


def _check_media(example, options) -> np.ndarray | None:
  """Decodes what will be decoded in training; returns the picture."""
  picture = None
  if isinstance(example.get("image"), bytes):
    picture = image.decode(example["image"])
    if 0 < options.image_size < min(picture.shape[:2]):
      example["image"] = _smaller(example["image"], options.image_size)
  if isinstance(example.get("audio"), bytes):
    audio.decode(example["audio"])
  if isinstance(example.get("video"), bytes):
    video.decode(example["video"])
  return picture


def _smaller(encoded: bytes, size: int) -> bytes:
  """The same picture with a shorter side of `size`; JPEG, or PNG if it was."""
  pixels = Image.fromarray(image.decode(encoded))
  scale = size / min(pixels.size)
  shape = [max(size, round(side * scale)) for side in pixels.size]
  pixels = pixels.resize(shape, Image.Resampling.LANCZOS)
  file = io.BytesIO()
  if encoded.startswith(b"\x89PNG"):
    pixels.save(file, "PNG", optimize=True)
  else:
    pixels.save(file, "JPEG", quality=JPEG_QUALITY)
  return file.getvalue()


def _filtered(example, picture, options) -> str:
  """Why an example is left out; "" if it is not."""
  if picture is not None and options.max_aspect:
    high, low = max(picture.shape[:2]), min(picture.shape[:2])
    if high > options.max_aspect * low:
      return "filtered: aspect ratio"
  texts = example.get(options.text)
  if texts is None or not (
    options.min_text or options.max_text or options.script
  ):
    return ""
  first = texts if isinstance(texts, str) else texts[0]
  if len(first) < options.min_text:
    return "filtered: text too short"
  if options.max_text and len(first) > options.max_text:
    return "filtered: text too long"
  if options.script and not of_script(first, options.script):
    return f"filtered: not {options.script}"
  return ""


def of_script(text: str, script: str) -> bool:
  """Whether at least half of the letters of a text are of a script."""
  letters = [ord(c) for c in text if c.isalpha()]
  own = sum(
    any(low <= c <= high for low, high in SCRIPTS[script]) for c in letters
  )
  return bool(letters) and 2 * own >= len(letters)


def _hash(example: Mapping[str, Any]) -> str:
  digest = hashlib.blake2b(digest_size=16)
  found = [example[f] for f in media.MEDIA if isinstance(example.get(f), bytes)]
  for part in found or [records.pack(example)]:
    digest.update(part)
  return digest.hexdigest()


def _difference_hash(picture: np.ndarray | None) -> str:
  """64 bits: whether each of 8 x 8 places is darker than the one to its right.

  Pictures that were only scaled, or encoded again, have the same one or nearly;
  source: "dHash", Krawetz 2013.
  """
  if picture is None:
    return ""
  small = Image.fromarray(picture).convert("L")
  small = small.resize((9, 8), Image.Resampling.LANCZOS)
  values = np.asarray(small, np.int16)
  bits = np.packbits(values[:, :-1] < values[:, 1:])
  if values.max() - values.min() < 8:  # Nothing to tell it by.
    return ""
  return bits.tobytes().hex()


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
