"""Sections of the `data` group of a config -> transforms, one function each."""

from collections.abc import Mapping
from typing import Any

from mmjax.core import errors, registry
from mmjax.data import packing, pairs, sources
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import (
  Transform,
  audio,
  conversation,
  decoding,
  image,
  label,
  optional,
  patches,
  question,
  reply,
  second,
  text,
  video,
)

ITSELF = "itself"
OF_TOKENIZER = ("tokenizer", "bos", "fill")
DECODING = {
  "parallel": decoding.ParallelText,
  "prefix": decoding.PrefixText,
}


def make_image(fields: Mapping[str, Any]) -> list[Transform]:
  also = ("mask", "second", "patches", "max_images")
  own = {name: value for name, value in fields.items() if name not in also}
  check_keys("data.image", own, image.ImageTransform, also=also)
  transform = registry.construct("data.image", image.ImageTransform, own)
  mask = dict(fields.get("mask") or {})
  if fields.get("patches"):
    return [_patches(fields, transform)]
  if not mask:
    return [transform]
  check_keys(
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
  check_keys(path, own, patches.PatchTransform, without=("image",))
  return registry.construct(path, patches.PatchTransform, own, image=transform)


def make_second(
  fields: Mapping[str, Any], source: sources.Source
) -> tuple[sources.Source, list[Transform]]:
  """The source with partners, if the config asks for them, and their look."""
  key = fields.get("second", "")
  if not key:
    return source, []
  also = ("mask", "second", "patches", "max_images")
  own = {k: v for k, v in fields.items() if k not in also}
  if key != ITSELF:
    paired = pairs.Paired(source, key, own.get("field", "image"))
    source, own = paired, {**own, "field": paired.other}
  view = registry.construct("data.image", second.SecondView, own)
  return source, [view]


def make_text(
  fields: Mapping[str, Any],
) -> tuple[TextTokenizer, list[Transform]]:
  path = "data.text"
  known = registry.field_names(text.Caption) or []
  caption = {name: value for name, value in fields.items() if name in known}
  own = {
    name: value
    for name, value in fields.items()
    if name not in (*known, "mask", "pack", *OF_TOKENIZER, *DECODING)
  }
  check_keys(
    path,
    own,
    text.TextTransform,
    also=("mask", "pack", *OF_TOKENIZER, *known, *DECODING),
    without=("caption", "output"),
  )
  tokenizer = _tokenizer(fields)
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
  check_keys(
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


def _tokenizer(fields):
  """The tokenizer, and how it lays out texts, if that is said."""
  tokenizer = TextTokenizer.load(fields.get("tokenizer", "starter"))
  layout = {k: fields[k] for k in ("bos", "fill") if k in fields}
  return tokenizer.laid_out(**{"bos": True, **layout}) if layout else tokenizer


def make_decoding(fields: Mapping[str, Any]) -> list[Transform]:
  made: list[Transform] = []
  for name, cls in DECODING.items():
    section = fields.get(name)
    if section:
      made.append(registry.construct(f"data.text.{name}", cls, section))
  return made


def make_question(fields: Mapping[str, Any]) -> question.QuestionTransform:
  check_keys("data.question", fields, question.QuestionTransform)
  return registry.construct("data.question", question.QuestionTransform, fields)


def make_answer(
  fields: Mapping[str, Any], tokenizer: TextTokenizer | None
) -> text.TextTransform:
  if tokenizer is None or not fields.get("field"):
    raise errors.UserError(
      "config.data.answer needs config.data.text, whose tokenizer it shares, "
      "and 'field': the field of the source that holds the answer."
    )
  given = ("tokenizer", "caption", "output")
  check_keys("data.answer", fields, text.TextTransform, without=given)
  return registry.construct(
    "data.answer",
    text.TextTransform,
    fields,
    tokenizer=tokenizer,
    output="answer",
  )


def make_conversation(
  fields: Mapping[str, Any], source: sources.Source
) -> tuple[sources.Source, TextTokenizer, list[Transform]]:
  """The source, packed if asked for, the tokenizer, and what reads both."""
  path = "data.conversation"
  also = ("pack", "reply")
  check_keys(path, fields, conversation.ConversationTransform, also=also)
  pictures = dict(fields.get("image") or {})
  check_keys(
    f"{path}.image", pictures, image.ImageTransform, without=("field",)
  )
  own = {
    name: value
    for name, value in fields.items()
    if name not in (*also, "tokenizer", "image")
  }
  tokenizer = TextTokenizer.load(fields.get("tokenizer", "starter"))
  made = registry.construct(
    path,
    conversation.ConversationTransform,
    own,
    tokenizer=tokenizer.with_chat(),
    image=registry.construct(f"{path}.image", image.ImageTransform, pictures),
  )
  if fields.get("pack"):
    room = (made.max_tokens, made.max_images)
    source = packing.Packed(source, made.measure, room, conversation.PACKED)
  transforms: list[Transform] = [made]
  if fields.get("reply"):
    transforms.append(reply.ReplyTransform(conversation=made))
  return source, made.tokenizer, transforms


def make_video(fields: Mapping[str, Any]) -> list[Transform]:
  path = "data.video"
  own = {name: value for name, value in fields.items() if name != "mask"}
  check_keys(path, own, video.VideoTransform, also=("mask",))
  transform = registry.construct(path, video.VideoTransform, own)
  mask = dict(fields.get("mask") or {})
  if not mask:
    return [transform]
  check_keys(
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


def make_audio(fields: Mapping[str, Any]) -> list[Transform]:
  path = "data.audio"
  own = {name: value for name, value in fields.items() if name != "mask"}
  check_keys(path, own, audio.AudioTransform, also=("mask",))
  transform = registry.construct(path, audio.AudioTransform, own)
  mask = fields.get("mask")
  if not mask:
    return [transform]
  given = transform.facts()
  check_keys(f"{path}.mask", mask, audio.MaskAudio, without=tuple(given))
  return [
    transform,
    registry.construct(f"{path}.mask", audio.MaskAudio, mask, **given),
  ]


def make_label(
  fields: Mapping[str, Any], source: sources.Source
) -> label.LabelTransform:
  check_keys("data.label", fields, label.LabelTransform, also=("num_classes",))
  fields = dict(fields)
  if count := fields.pop("num_classes", 0):
    if count < 0 or fields.get("names"):
      raise errors.UserError(
        f"config.data.label.num_classes={count}: expected the number of "
        "classes 0, 1, ..., or else their names."
      )
    fields["names"] = tuple(map(str, range(count)))
  if fields.get("names"):
    return registry.construct("data.label", label.LabelTransform, fields)
  default = label.LabelTransform.field
  name = fields.get("field", default)
  known = getattr(source, "class_names", {})
  if name not in known and hasattr(source, "find_classes"):
    found = source.find_classes(name)
    if fields.get("multi_label"):
      parts = (part for item in found for part in item.split(label.SEPARATOR))
      found = tuple(sorted({*parts} - {""}))
    known = {**known, name: found} if found else known
  if name not in known:
    raise errors.UserError(
      f"config.data.label.field={name!r}: the source does not say which "
      f"classes it has.{errors.nearest(name, known)} It does for "
      f"{sorted(known)}; for others give config.data.label.names, or "
      "config.data.label.num_classes."
    )
  rest = {key: value for key, value in fields.items() if key != "names"}
  return registry.construct(
    "data.label", label.LabelTransform, rest, names=tuple(known[name])
  )


def make_optional(name: str, transforms: list[Transform]) -> optional.Optional:
  first = transforms[0]
  field = getattr(first, "field", "")
  if isinstance(first, text.TextTransform) and not field:
    field = f"label_{first.caption.languages[0]}"
  return optional.Optional(
    modality=name, field=field, transforms=tuple(transforms)
  )


def make_extra(path: str, fields: Mapping[str, Any]) -> Transform:
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


def check_keys(path, fields, cls, *, also=(), without=()) -> None:
  # Before `construct`: some keys of a section belong to another class, and
  # some fields of the class do not come from the config.
  known = {*(registry.field_names(cls) or ()), *also} - set(without)
  for name in fields:
    if name not in known:
      raise errors.UserError(
        f"Unknown key 'config.{path}.{name}'.{errors.nearest(name, known)} "
        f"Known: {sorted(known)}."
      )
