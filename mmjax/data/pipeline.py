"""Config -> pipeline: opens the source and builds the transforms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors, registry
from mmjax.data import broken, codes, pairs, sources
from mmjax.data.examples import Pipeline
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import (
  Transform,
  audio,
  decoding,
  image,
  label,
  optional,
  patches,
  question,
  second,
  text,
  video,
)

ITSELF = "itself"
DECODING = {
  "parallel": decoding.ParallelText,
  "prefix": decoding.PrefixText,
}
FIRST_TRIES = 100  # Examples of which one has to be good.


@dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The `data` group of a config. A section that is None is left out."""

  source: str = "starter_emoji"  # See `mmjax.data.SOURCES`.
  path: str = ""  # Where the data lie; "" = the source's own place.
  split: str = "train"
  # Fields of `ImageTransform`, and `mask`: strategy, rate, patch_size (pixels);
  # `second`: a text field; `image_second` is then a picture of the next example
  # that has the same there, or, with "itself", another crop of the same;
  # `patches`: fields of `PatchTransform`, for pictures of any shape.
  image: Mapping[str, Any] | None = None
  # Fields of `TextTransform` and `Caption` (not used if `field` names the text
  # to read), and `mask`: strategy, rate. `tokenizer` is a file, or "starter".
  # `prefix` and `parallel`: rate, see `PrefixText` and `ParallelText`.
  text: Mapping[str, Any] | None = None
  # Fields of `VideoTransform`, and `mask`: strategy, rate, patch_size (pixels),
  # tubelet_frames.
  video: Mapping[str, Any] | None = None
  # Fields of `AudioTransform`, and `mask`: strategy, rate, span and the sizes
  # of the encoder's spectrogram, see `MaskAudio`.
  audio: Mapping[str, Any] | None = None
  label: Mapping[str, Any] | None = None  # Fields of `LabelTransform`.
  # Fields of `QuestionTransform`, whose texts the other sections may read.
  question: Mapping[str, Any] | None = None
  # A second text, `answer`: `field` and `max_tokens`; the tokenizer of `text`.
  answer: Mapping[str, Any] | None = None
  # Transforms of your own: `name`, an address, and their fields.
  extra: Sequence[Mapping[str, Any]] = ()
  # Modalities that an example may lack, e.g. ("image",): `image_present` says
  # which have it, and what is not there changes nothing.
  optional: tuple[str, ...] = ()
  # `path`: codes of pictures, clips or recordings, written by `mmjax data
  # tokens`; adds the field <modality>_codes, see `mmjax.data.codes`.
  codes: Mapping[str, Any] | None = None
  cache_mib: int = 256  # Keep this much of decoded examples in memory.
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
  if not 0 <= parsed.max_bad_fraction <= 1:
    raise errors.UserError(
      f"config.data.max_bad_fraction={parsed.max_bad_fraction}, expected "
      "[0, 1]."
    )
  source = sources.open_source(
    parsed.source, split=parsed.split, path=parsed.path
  )
  transforms: list[Transform] = []
  tokenizer, class_names = None, ()
  sections: dict[str, list[Transform]] = {}
  if parsed.image:
    sections["image"] = _image(parsed.image)
    source, second_view = _second(parsed.image, source)
    sections["image"] += second_view
  if parsed.question:
    transforms.append(_question(parsed.question))
  if parsed.text:
    tokenizer, sections["text"] = _text(parsed.text)
    sections["text"] += _decoding(parsed.text)
  if parsed.answer:
    sections["answer"] = [_answer(parsed.answer, tokenizer)]
  if parsed.video:
    sections["video"] = _video(parsed.video)
  if parsed.audio:
    sections["audio"] = _audio(parsed.audio)
  for name in parsed.optional:
    if name not in sections:
      raise errors.unknown("section of config.data.optional", name, sections)
    sections[name] = [_optional(name, sections[name])]
  for built in sections.values():
    transforms += built
  if parsed.label:
    labels = _label(parsed.label, source)
    class_names = labels.names
    transforms.append(labels)
  for i, fields in enumerate(parsed.extra):
    transforms.append(_extra(f"data.extra[{i}]", fields))
  cached = None
  if parsed.codes:
    _check_keys(
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
  pipeline = Pipeline(
    source,
    transforms,
    name=parsed.source,
    split=parsed.split,
    tokenizer=tokenizer,
    class_names=class_names,
    cache_mib=parsed.cache_mib,
    max_bad_fraction=parsed.max_bad_fraction,
  )
  _check_first(pipeline)
  if cached:
    codes.check_first(cached.features, pipeline)
  return pipeline


def _image(fields: Mapping[str, Any]) -> list[Transform]:
  also = ("mask", "second", "patches")
  own = {name: value for name, value in fields.items() if name not in also}
  _check_keys("data.image", own, image.ImageTransform, also=also)
  transform = registry.construct("data.image", image.ImageTransform, own)
  mask = dict(fields.get("mask") or {})
  if fields.get("patches"):
    return [_patches(fields, transform)]
  if not mask:
    return [transform]
  _check_keys(
    "data.image.mask",
    mask,
    image.MaskImage,
    also=("patch_size",),
    without=("grid",),
  )
  patch_size = mask.pop("patch_size", 8)
  if patch_size < 1 or transform.size % patch_size:
    raise errors.UserError(
      f"config.data.image.mask.patch_size={patch_size} does not divide "
      f"config.data.image.size={transform.size}."
    )
  side = transform.size // patch_size
  return [
    transform,
    registry.construct(
      "data.image.mask", image.MaskImage, mask, grid=(side, side)
    ),
  ]


def _patches(
  fields: Mapping[str, Any], transform: image.ImageTransform
) -> patches.PatchTransform:
  path = "data.image.patches"
  for name in ("mask", "second"):
    if fields.get(name):
      raise errors.UserError(
        f"config.data.image.{name} needs pictures of one shape: leave it or "
        f"config.{path} out."
      )
  own = fields["patches"]
  _check_keys(path, own, patches.PatchTransform, without=("image",))
  return registry.construct(path, patches.PatchTransform, own, image=transform)


def _second(
  fields: Mapping[str, Any], source: sources.Source
) -> tuple[sources.Source, list[Transform]]:
  """The source with partners, if the config asks for them, and their look."""
  key = fields.get("second", "")
  if not key:
    return source, []
  also = ("mask", "second", "patches")
  own = {k: v for k, v in fields.items() if k not in also}
  if key != ITSELF:
    paired = pairs.Paired(source, key, own.get("field", "image"))
    source, own = paired, {**own, "field": paired.other}
  view = registry.construct("data.image", second.SecondView, own)
  return source, [view]


def _text(
  fields: Mapping[str, Any],
) -> tuple[TextTokenizer, list[Transform]]:
  path = "data.text"
  known = registry.field_names(text.Caption) or []
  caption = {name: value for name, value in fields.items() if name in known}
  own = {
    name: value
    for name, value in fields.items()
    if name not in (*known, "mask", "tokenizer", *DECODING)
  }
  _check_keys(
    path,
    own,
    text.TextTransform,
    also=("mask", *known, *DECODING),
    without=("caption", "output"),
  )
  tokenizer = TextTokenizer.load(fields.get("tokenizer", "starter"))
  transform = registry.construct(
    path,
    text.TextTransform,
    own,
    tokenizer=tokenizer,
    caption=registry.construct(path, text.Caption, caption),
  )
  mask = fields.get("mask")
  if not mask:
    return tokenizer, [transform]
  _check_keys(
    f"{path}.mask", mask, text.MaskText, without=("tokenizer", "max_tokens")
  )
  masking = registry.construct(
    f"{path}.mask",
    text.MaskText,
    mask,
    tokenizer=tokenizer,
    max_tokens=transform.max_tokens,
  )
  return tokenizer, [transform, masking]


def _decoding(fields: Mapping[str, Any]) -> list[Transform]:
  made: list[Transform] = []
  for name, cls in DECODING.items():
    section = fields.get(name)
    if section:
      made.append(registry.construct(f"data.text.{name}", cls, section))
  return made


def _question(fields: Mapping[str, Any]) -> question.QuestionTransform:
  _check_keys("data.question", fields, question.QuestionTransform)
  return registry.construct("data.question", question.QuestionTransform, fields)


def _answer(
  fields: Mapping[str, Any], tokenizer: TextTokenizer | None
) -> text.TextTransform:
  if tokenizer is None or not fields.get("field"):
    raise errors.UserError(
      "config.data.answer needs config.data.text, whose tokenizer it shares, "
      "and 'field': the field of the source that holds the answer."
    )
  given = ("tokenizer", "caption", "output")
  _check_keys("data.answer", fields, text.TextTransform, without=given)
  return registry.construct(
    "data.answer",
    text.TextTransform,
    fields,
    tokenizer=tokenizer,
    output="answer",
  )


def _video(fields: Mapping[str, Any]) -> list[Transform]:
  path = "data.video"
  own = {name: value for name, value in fields.items() if name != "mask"}
  _check_keys(path, own, video.VideoTransform, also=("mask",))
  transform = registry.construct(path, video.VideoTransform, own)
  mask = dict(fields.get("mask") or {})
  if not mask:
    return [transform]
  _check_keys(
    f"{path}.mask",
    mask,
    video.MaskVideo,
    also=("patch_size", "tubelet_frames"),
    without=("grid",),
  )
  cuts = (
    ("tubelet_frames", mask.pop("tubelet_frames", 2), "num_frames"),
    ("patch_size", mask.pop("patch_size", 8), "size"),
  )
  for name, value, whole in cuts:
    if value < 1 or getattr(transform, whole) % value:
      raise errors.UserError(
        f"config.{path}.mask.{name}={value} does not divide "
        f"config.{path}.{whole}={getattr(transform, whole)}."
      )
  times = transform.num_frames // cuts[0][1]
  side = transform.size // cuts[1][1]
  return [
    transform,
    registry.construct(
      f"{path}.mask", video.MaskVideo, mask, grid=(times, side, side)
    ),
  ]


def _audio(fields: Mapping[str, Any]) -> list[Transform]:
  path = "data.audio"
  own = {name: value for name, value in fields.items() if name != "mask"}
  _check_keys(path, own, audio.AudioTransform, also=("mask",))
  transform = registry.construct(path, audio.AudioTransform, own)
  mask = fields.get("mask")
  if not mask:
    return [transform]
  given = transform.facts()
  _check_keys(f"{path}.mask", mask, audio.MaskAudio, without=tuple(given))
  return [
    transform,
    registry.construct(f"{path}.mask", audio.MaskAudio, mask, **given),
  ]


def _label(
  fields: Mapping[str, Any], source: sources.Source
) -> label.LabelTransform:
  _check_keys("data.label", fields, label.LabelTransform)
  if fields.get("names"):
    return registry.construct("data.label", label.LabelTransform, fields)
  default = label.LabelTransform.field
  name = fields.get("field", default)
  known = getattr(source, "class_names", {})
  if name not in known:
    raise errors.UserError(
      f"config.data.label.field={name!r}: the source does not say which "
      f"classes it has.{errors.nearest(name, known)} It does for "
      f"{sorted(known)}; for others give config.data.label.names."
    )
  rest = {key: value for key, value in fields.items() if key != "names"}
  return registry.construct(
    "data.label", label.LabelTransform, rest, names=tuple(known[name])
  )


def _optional(name: str, transforms: list[Transform]) -> optional.Optional:
  first = transforms[0]
  field = getattr(first, "field", "")
  if isinstance(first, text.TextTransform) and not field:
    field = f"label_{first.caption.languages[0]}"
  return optional.Optional(
    modality=name, field=field, transforms=tuple(transforms)
  )


def _extra(path: str, fields: Mapping[str, Any]) -> Transform:
  own = {name: value for name, value in fields.items() if name != "name"}
  if "name" not in fields:
    raise errors.UserError(
      f"config.{path} has no 'name'; expected 'package.module:Class'."
    )
  cls = registry.lookup("transform", fields["name"], {})
  transform = registry.construct(path, cls, own)
  if not isinstance(transform, Transform):
    raise errors.UserError(
      f"config.{path}: {fields['name']!r} lacks __call__ or specs()."
    )
  return transform


def _check_keys(path, fields, cls, *, also=(), without=()) -> None:
  # Before `construct`: some keys of a section belong to another class, and
  # some fields of the class do not come from the config.
  known = {*(registry.field_names(cls) or ()), *also} - set(without)
  for name in fields:
    if name not in known:
      raise errors.UserError(
        f"Unknown key 'config.{path}.{name}'.{errors.nearest(name, known)} "
        f"Known: {sorted(known)}."
      )


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
