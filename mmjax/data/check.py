"""What is in a data set, and what is broken: reads and decodes all of it."""

import contextlib
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.core import errors
from mmjax.data import broken, files, sources
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.tokenizer_fit import Fit
from mmjax.data.transforms import audio, image, video

NUM_SAMPLES = 3
NUM_PROBED = 10  # Examples that decide what a field's bytes encode.
WIDTH, INDENT = 80, " " * 10  # Of the lists of broken examples.
SHOWN = 80  # Characters of a text that a sample shows.
LENGTHS = (4, 8, 16, 32, 64, 128, 256, 512)  # Edges of the histogram, tokens.
PICTURE, CLIP, RECORDING = "picture", "clip", "recording"
AUDIO_OR_VIDEO = {
  b"OggS": "ogg",
  b"fLaC": "flac",
  b"ID3": "mp3",
}


@dataclass(frozen=True)
class CheckResult:
  """What `check` found."""

  source: str
  splits: dict[str, int]  # Examples of each split.
  checked: dict[str, int]  # Of each split that was looked at, how many.
  fields: dict[str, str]  # What each field holds, in words.
  samples: tuple[dict[str, str], ...]  # Some examples, fit to print.
  text_lengths: dict[str, dict[str, int]]  # Field -> length -> examples.
  tokenizer: str  # What counted the lengths, and how it fits the texts.
  broken: dict[str, tuple[str, ...]]  # Reason -> examples, as "split[index]".

  @property
  def num_checked(self) -> int:
    return sum(self.checked.values())

  @property
  def num_broken(self) -> int:
    return len({where for found in self.broken.values() for where in found})


def check(
  source: str,
  split: str = "",
  *,
  path: str = "",
  limit: int | None = None,
  tokenizer: str = "starter",
) -> CheckResult:
  """Reads and decodes all examples.

  Args:
    source: a name as in a config, or the folder of a prepared TFDS data set.
    split: to look at; "" is all that the source tells of, else "train".
    path: where the data of a named source lie.
    limit: look at no more than so many examples of a split.
    tokenizer: that counts the tokens of the texts.

  Raises:
    UserError: neither a source nor such a folder, or an unknown split.
  """
  first = open_any(source, split, path)
  splits = dict(getattr(first, "splits", {split or "train": len(first)}))
  survey = _Survey(TextTokenizer.load(tokenizer))
  checked = {}
  for name in [split] if split else splits:
    opened = open_any(source, name, path)
    count = len(opened) if limit is None else min(len(opened), limit)
    survey.find_media(opened, min(count, NUM_PROBED))
    for index in range(count):
      survey.add(f"{name}[{index}]", opened, index)
    checked[name] = count
  return CheckResult(
    source=source,
    splits=splits,
    checked=checked,
    fields=survey.describe(),
    samples=tuple(survey.samples),
    text_lengths={
      field: _histogram(lengths) for field, lengths in survey.lengths.items()
    },
    tokenizer=survey.describe_tokenizer(),
    broken={
      reason: tuple(found) for reason, found in sorted(survey.broken.items())
    },
  )


def open_any(source: str, split: str = "", path: str = "") -> sources.Source:
  """Opens what a name or a path stands for; without a split, its first."""
  if source.startswith(sources.TFDS_PREFIX):
    name = source.removeprefix(sources.TFDS_PREFIX)
    return sources.tfds_folder(name, split=split, path=path)
  if source in sources.SOURCES:
    return sources.open_source(source, split=split or "train", path=path)
  if _is_tfds(source):
    return sources.tfds_folder("", split=split, path=source)
  if Path(source).expanduser().exists() or files.is_pattern(source):
    return sources.open_source("files", split=split or "train", path=source)
  if ":" in source:
    return sources.open_source(source, split=split or "train", path=path)
  raise errors.UserError(
    f"{source!r} is neither a source nor a path."
    f"{errors.nearest(source, sources.SOURCES)} Expected one of "
    f"{sorted(sources.SOURCES)}, 'tfds:NAME' with a path, "
    "'package.module:Class', a folder written by TFDS (dataset_info.json and "
    "*.array_record* files), or files: a folder of pictures, a table, tar "
    "shards."
  )


def _is_tfds(source: str) -> bool:
  """Whether a folder is that of a TFDS data set, or around it."""
  folder = Path(source).expanduser()
  found = (
    info
    for below in ("", "*/", "*/*/", "*/*/*/")
    for info in folder.glob(f"{below}dataset_info.json")
  )
  # Those of Hugging Face have a file of the same name.
  return any(not (info.parent / "state.json").exists() for info in found)


class _Survey:
  """Collects what is said about the examples, one at a time."""

  def __init__(self, tokenizer: TextTokenizer):
    self.samples: list[dict[str, str]] = []
    self.lengths: dict[str, list[int]] = {}
    self.broken: dict[str, list[str]] = {}
    self._media: dict[str, str] = {}  # Field -> what its bytes encode.
    self._tokenizer = tokenizer
    self._fit = Fit()
    self._kinds: dict[str, set[str]] = {}
    self._sizes: dict[str, list[tuple[int | float, ...]]] = {}

  def find_media(self, opened: sources.Source, count: int) -> None:
    """Finds what the bytes of each field encode, by the first examples."""
    for index in range(count):
      try:
        example = opened[index]
      except Exception:  # `add` reports it.
        continue
      for name, value in example.items():
        # A clip may be so short that it looks like a picture.
        if isinstance(value, bytes) and self._media.get(name) != CLIP:
          if found := medium(value):
            self._media[name] = found

  def add(self, where: str, opened: sources.Source, index: int) -> None:
    """Looks at one example; `where` names it in reports."""
    try:
      example = opened[index]
    except Exception as e:  # A damaged record raises nearly anything.
      self._blame(f"cannot be read: {type(e).__name__}: {e}", where)
      return
    shown = {}
    for name, value in example.items():
      try:
        kind, size, text = self._look(name, value)
      except ValueError as e:
        self._blame(f"{name}: {e}", where)
        continue
      self._kinds.setdefault(name, set()).add(kind)
      self._sizes.setdefault(name, []).append(size)
      shown[name] = text
    if len(self.samples) < NUM_SAMPLES and len(shown) == len(example):
      self.samples.append(shown)

  def _blame(self, reason: str, where: str) -> None:
    reason = broken.without_address(reason)
    self.broken.setdefault(reason, []).append(where)

  def _look(self, name: str, value: Any) -> tuple[str, tuple, str]:
    if isinstance(value, str):
      self.lengths.setdefault(name, []).append(self._count(value))
      text = value if len(value) <= SHOWN else value[: SHOWN - 3] + "..."
      return "text, characters", (len(value),), text
    if isinstance(value, tuple) and all(isinstance(v, str) for v in value):
      lengths = self.lengths.setdefault(name, [])
      lengths += [self._count(item) for item in value]
      joined = " | ".join(value)
      text = joined if len(joined) <= SHOWN else joined[: SHOWN - 3] + "..."
      return "texts, number of them", (len(value),), text
    if isinstance(value, bytes):
      return self._look_inside(self._media.get(name), value)
    if value is None:
      raise ValueError("holds nothing (None)")
    array = np.asarray(value)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
      raise ValueError("holds NaN or infinite numbers")
    if array.ndim == 0 and array.dtype.kind in "biuf":
      return f"number, {array.dtype}", (array.item(),), str(value)
    shape = "x".join(map(str, array.shape))
    text = f"<{array.dtype} array, {shape}>"
    return f"{array.dtype} array, shape", array.shape, text

  def _count(self, text: str) -> int:
    """The tokens of a text, bos and eos included."""
    return self._fit.add(text, self._tokenizer) + 2

  def describe_tokenizer(self) -> str:
    """Kind and size, and how it fits the texts; "" if there are none."""
    if not self.lengths:
      return ""
    return f"{self._tokenizer.describe()}; {self._fit.describe()}"

  def _look_inside(
    self, medium: str | None, value: bytes
  ) -> tuple[str, tuple, str]:
    if medium == RECORDING:
      samples, rate = audio.decode(value)
      seconds = round(len(samples) / rate, 2)
      peak = np.abs(samples).max()
      text = f"<{seconds:.1f} s at {rate} Hz, peak {peak:.2f}>"
      return f"recording, {rate} Hz, seconds", (seconds,), text
    if medium == CLIP:
      frames = video.decode(value)
      count, height, width = frames.shape[:3]
      text = f"<{count} frames of {width}x{height}, {_mean(frames)}>"
      return "clip, frames x width x height", (count, width, height), text
    if medium == PICTURE:
      pixels = image.decode(value)
      height, width = pixels.shape[:2]
      text = f"<{width}x{height} picture, {_mean(pixels)}>"
      return "picture, width x height", (width, height), text
    kind = f"encoded bytes ({_format(value)}, not decoded), bytes"
    return kind, (len(value),), f"<{len(value)} bytes, {_format(value)}>"

  def describe(self) -> dict[str, str]:
    """Says of each field what it holds and from which size to which."""
    out = {}
    for name, kinds in self._kinds.items():
      sizes = self._sizes[name]
      low, high = _join(min(sizes)), _join(max(sizes))
      range_text = low if low == high else f"{low} to {high}"
      empty = sizes.count((0,))
      note = f" ({empty:,} empty)" if empty else ""
      out[name] = f"{' or '.join(sorted(kinds))} {range_text}{note}"
    return out


def medium(value: bytes) -> str:
  """What bytes encode: what a decoder takes them for; "" if none does."""
  # Recordings first: films are tried by PyAV, which opens some of them too.
  with contextlib.suppress(ValueError):
    audio.decode(value)
    return RECORDING
  with contextlib.suppress(ValueError):
    return CLIP if len(video.decode(value)) > 1 else PICTURE
  return ""


def _mean(pixels: np.ndarray) -> str:
  colour = pixels.reshape(-1, 3).mean(axis=0)
  return "mean RGB " + ", ".join(f"{c:.0f}" for c in colour)


def _join(size: tuple[int | float, ...]) -> str:
  return "x".join(f"{n:g}" for n in size)


def _format(value: bytes) -> str:
  for magic, name in AUDIO_OR_VIDEO.items():
    if value.startswith(magic):
      return name
  if value[:4] == b"RIFF":
    return value[8:12].decode("ascii", "replace").strip().lower()
  return "mp4" if value[4:8] == b"ftyp" else "unknown format"


def _histogram(lengths: list[int]) -> dict[str, int]:
  edges = [0, *LENGTHS]
  names = [
    f"{low + 1}-{high}" for low, high in zip(edges, LENGTHS, strict=False)
  ]
  names.append(f"over {LENGTHS[-1]}")
  counts = Counter(np.searchsorted(LENGTHS, lengths).tolist())
  return {names[i]: counts[i] for i in sorted(counts)}


def format_result(result: CheckResult) -> str:
  """Formats what was found, for a terminal."""
  return "\n".join(_lines(result))


def _lines(result: CheckResult) -> Iterator[str]:
  yield f"Source  {result.source}"
  yield "Splits"
  for name, count in result.splits.items():
    seen = result.checked.get(name, 0)
    yield f"  {name:30} {count:8,} examples, {seen:,} checked"
  yield "Fields"
  for name, text in result.fields.items():
    yield f"  {name:14} {text}"
  for i, sample in enumerate(result.samples):
    yield f"Sample {i + 1}"
    for name, text in sample.items():
      yield f"  {name:14} {text}"
  if result.text_lengths:
    yield f"Tokenizer  {result.tokenizer}"
    yield "Lengths of texts, in tokens with bos and eos"
  for name, histogram in result.text_lengths.items():
    bars = "  ".join(f"{bin}: {n:,}" for bin, n in histogram.items())
    yield f"  {name:14} {bars}"
  if not result.broken:
    yield f"No problem in {result.num_checked:,} examples."
    return
  yield (
    f"Broken: {result.num_broken:,} of {result.num_checked:,} examples. By "
    "reason:"
  )
  for reason, found in result.broken.items():
    yield f"  {len(found):6,}  {reason}"
    yield textwrap.fill(
      ", ".join(found),
      WIDTH,
      initial_indent=INDENT,
      subsequent_indent=INDENT,
      break_long_words=False,
    )
