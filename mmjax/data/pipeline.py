"""Config -> pipeline: opens the source and builds the transforms."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmjax.core import errors, registry
from mmjax.data import broken, buckets, codes, rows, sections, sources
from mmjax.data.examples import Pipeline
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import Transform

FIRST_TRIES = 100  # Examples of which one has to be good.


@dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The `data` group of a config. A section that is None is left out."""

  source: str = "starter_emoji"  # See `mmjax.data.SOURCES`.
  path: str = ""  # Where the data lie; "" = the source's own place.
  # Field -> column of a table, where they have different names, e.g.
  # dict(image="file_name", text="caption").
  columns: Mapping[str, str] = field(default_factory=dict)
  split: str = "train"
  # Fields of `ImageTransform`, and `mask`: strategy, rate, patch_size (pixels);
  # `second`: a text field; `image_second` is then a picture of the next example
  # that has the same there, or, with "itself", another crop of the same;
  # `patches`: fields of `PatchTransform`, for pictures of any shape;
  # `max_images`: pictures of a row, where `data.text.pack` makes rows.
  image: Mapping[str, Any] | None = None
  # Fields of `TextTransform` and `Caption` (not used if `field` names the text
  # to read), and `mask`: strategy, rate. `tokenizer` is a file, or "starter";
  # `bos` and `fill`, if texts have another layout: `TextTokenizer.laid_out`.
  # `prefix` and `parallel`: rate, see `PrefixText` and `ParallelText`. `pack`:
  # rows of `max_tokens` hold several texts, see `rows`.
  text: Mapping[str, Any] | None = None
  # Fields of `VideoTransform`, and `mask`: strategy, rate, patch_size (pixels),
  # tubelet_frames.
  video: Mapping[str, Any] | None = None
  # Fields of `AudioTransform`, and `mask`: strategy, rate, span and the sizes
  # of the encoder's spectrogram, see `MaskAudio`.
  audio: Mapping[str, Any] | None = None
  # Fields of `LabelTransform`. Without `names`: as the source has them, of a
  # table the distinct texts; `num_classes` for numbers 0, 1, ...
  label: Mapping[str, Any] | None = None
  # Fields of `QuestionTransform`, whose texts the other sections may read.
  question: Mapping[str, Any] | None = None
  # A second text, `answer`: `field` and `max_tokens`; the tokenizer of `text`.
  answer: Mapping[str, Any] | None = None
  # Fields of `ConversationTransform`, with `image` those of `ImageTransform`,
  # `tokenizer` a file, or "starter", `pack`: several share a row, and `reply`:
  # adds the `prompt` of the last reply, for evaluators. In place of `image` and
  # `text`.
  conversation: Mapping[str, Any] | None = None
  # Transforms of your own: `name`, an address, and their fields.
  extra: Sequence[Mapping[str, Any]] = ()
  # Modalities that an example may lack, e.g. ("image",): `image_present` says
  # which have it, and what is not there changes nothing.
  optional: tuple[str, ...] = ()
  # `path`: codes of pictures, clips or recordings, written by `mmjax data
  # tokens`; adds the field <modality>_codes, see `mmjax.data.codes`.
  codes: Mapping[str, Any] | None = None
  # Keep this much of decoded examples in memory, of all workers together.
  cache_mib: int = 256
  # Lengths, e.g. (16, 32, 64), the last `text.max_tokens`: a batch of training
  # is of texts of one bucket, and cut to its length. See `mmjax.data.buckets`.
  buckets: tuple[int, ...] = ()
  # Processes that make the batches of training; 0 = threads of this one. See
  # `mmjax.data.workers`.
  workers: int = 0
  # Broken examples are skipped and counted; more than this share of those seen
  # is an error (fewer than 1000 seen count as 1000, or as all there are).
  max_bad_fraction: float = 0.01


def build_pipeline(config: Mapping[str, Any]) -> Pipeline:
  """Builds a pipeline from the `data` group of a config.

  The first example that is not broken is made at once, so that what does not
  fit the source is known before the first step.

  Raises:
    UserError: an unknown key or name, missing data, fields that do not fit, or
      none of the first examples can be used.
  """
  parsed = registry.construct("data", DataConfig, _tuples(config))
  if parsed.cache_mib < 0:
    raise errors.UserError(
      f"config.data.cache_mib={parsed.cache_mib}, expected 0 or more."
    )
  if parsed.workers < 0:
    raise errors.UserError(
      f"config.data.workers={parsed.workers}, expected 0 or more."
    )
  if not 0 <= parsed.max_bad_fraction <= 1:
    raise errors.UserError(
      f"config.data.max_bad_fraction={parsed.max_bad_fraction}, expected "
      "[0, 1]."
    )
  source = sources.open_source(
    parsed.source,
    split=parsed.split,
    path=parsed.path,
    columns=parsed.columns,
  )
  source, tokenizer, transforms = _transforms(parsed, source)
  class_names: tuple[str, ...] = ()
  if parsed.label:
    labels = sections.make_label(parsed.label, source)
    class_names = labels.names
    transforms.append(labels)
  for i, fields in enumerate(parsed.extra):
    transforms.append(sections.make_extra(f"data.extra[{i}]", fields))
  cached = None
  if parsed.codes:
    sections.check_keys(
      "data.codes", parsed.codes, codes.CachedCodes, without=("split",)
    )
    source, cached = codes.open_codes(
      parsed.codes.get("path", ""),
      source,
      transforms,
      name=parsed.source,
      split=parsed.split,
    )
    transforms.append(cached)
  if not transforms:
    raise errors.UserError(
      "config.data makes no fields: give at least one of data.image, "
      "data.text, data.video, data.audio, data.label and data.extra."
    )
  found = None
  if parsed.buckets:
    found = buckets.make_buckets(parsed.buckets, source, transforms)
  pipeline = Pipeline(
    source,
    transforms,
    name=parsed.source,
    split=parsed.split,
    tokenizer=tokenizer,
    class_names=class_names,
    cache_mib=parsed.cache_mib,
    max_bad_fraction=parsed.max_bad_fraction,
    workers=parsed.workers,
    buckets=found,
  )
  _check_first(pipeline)
  if cached:
    codes.check_first(cached.features, pipeline)
  return pipeline


def _transforms(
  parsed: DataConfig, source: sources.Source
) -> tuple[sources.Source, TextTokenizer | None, list[Transform]]:
  """The source, with partners if it needs some, and what makes the modalities.

  Returns:
    The source, the tokenizer of the texts, and the transforms in their order.
  """
  first: list[Transform] = []
  made: dict[str, list[Transform]] = {}
  tokenizer = None
  if parsed.image:
    made["image"] = sections.make_image(parsed.image)
    source, second_view = sections.make_second(parsed.image, source)
    # First: it looks at the whole picture too, not at a part of a part.
    made["image"] = [*second_view, *made["image"]]
  if parsed.question:
    first.append(sections.make_question(parsed.question))
  # Before the texts, which they look at as the source has them.
  if parsed.video:
    made["video"] = sections.make_video(parsed.video)
  if parsed.text:
    tokenizer, made["text"] = sections.make_text(parsed.text)
    made["text"] += sections.make_decoding(parsed.text)
  if parsed.text and parsed.text.get("pack"):
    single = [*itertools.chain(*made.values())]
    source, row = rows.make_rows(vars(parsed), source, single)
    return source, tokenizer, [row]
  rows.check_single(parsed.image or {})
  if parsed.answer:
    made["answer"] = [sections.make_answer(parsed.answer, tokenizer)]
  if parsed.conversation:
    if parsed.text or parsed.image:
      raise errors.UserError(
        "config.data.conversation makes the texts and the pictures: set "
        "config.data.text and config.data.image to None."
      )
    source, tokenizer, made["conversation"] = sections.make_conversation(
      parsed.conversation, source
    )
  if parsed.audio:
    made["audio"] = sections.make_audio(parsed.audio)
  for name in parsed.optional:
    if name not in made:
      raise errors.unknown("section of config.data.optional", name, made)
    made[name] = [sections.make_optional(name, made[name])]
  return source, tokenizer, [*first, *itertools.chain(*made.values())]


def _check_first(pipeline: Pipeline) -> None:
  first = _first_good(pipeline)
  for name, spec in pipeline.specs.items():
    value = np.asarray(first[name])
    if not spec.matches(value[None]):
      raise errors.UserError(
        f"The field {name!r} of {pipeline.name!r} is declared as {spec}, but "
        f"an example holds {value.dtype}{list(value.shape)}."
      )


def _first_good(pipeline: Pipeline) -> dict[str, Any]:
  count = min(FIRST_TRIES, len(pipeline))
  reasons: list[broken.BadExample] = []
  for index in range(count):
    try:
      return pipeline.example(index, 0, 0, train=True)
    except broken.BadExample as e:
      reasons.append(e)
  raise errors.UserError(
    f"None of the first {count} examples of {pipeline.name!r}, split "
    f"{pipeline.split!r}, can be used:\n{broken.describe(reasons)}"
  )


def _tuples(value: Any) -> Any:
  # Configs that went through JSON have lists where they had tuples.
  if isinstance(value, Mapping):
    return {name: _tuples(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(_tuples(item) for item in value)
  return value
