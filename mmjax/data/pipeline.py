"""Config -> pipeline: opens the source and builds the transforms."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmjax.core import errors, registry
from mmjax.data import sources
from mmjax.data.examples import Pipeline
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import Transform, image, label, text


@dataclass(frozen=True, kw_only=True)
class DataConfig:
  """The `data` group of a config. A section that is None is left out."""

  source: str = "starter_emoji"  # See `mmjax.data.SOURCES`.
  path: str = ""  # Where the data lie; "" = the source's own place.
  split: str = "train"
  # Fields of `ImageTransform`, and `mask`: strategy, rate, patch_size (pixels).
  image: Mapping[str, Any] | None = None
  # Fields of `TextTransform` and `Caption` (not used if `field` names the text
  # to read), and `mask`: rate. `tokenizer` is a file, or "starter".
  text: Mapping[str, Any] | None = None
  label: Mapping[str, Any] | None = None  # Fields of `LabelTransform`.
  # Transforms of your own: `name`, an address, and their fields.
  extra: Sequence[Mapping[str, Any]] = ()
  cache_mib: int = 256  # Keep this much of decoded examples in memory.


def build_pipeline(config: Mapping[str, Any]) -> Pipeline:
  """Builds a pipeline from the `data` group of a config.

  The first example is made at once, so that what does not fit the source is
  known before the first step.

  Raises:
    UserError: an unknown key or name, missing data, fields that do not fit.
  """
  parsed = registry.construct("data", DataConfig, _tuples(config))
  if parsed.cache_mib < 0:
    raise errors.UserError(
      f"config.data.cache_mib={parsed.cache_mib}, expected 0 or more."
    )
  source = sources.open_source(
    parsed.source, split=parsed.split, path=parsed.path
  )
  transforms: list[Transform] = []
  tokenizer, class_names = None, ()
  if parsed.image:
    transforms += _image(parsed.image)
  if parsed.text:
    tokenizer, built = _text(parsed.text)
    transforms += built
  if parsed.label:
    labels = _label(parsed.label, source)
    class_names = labels.names
    transforms.append(labels)
  for i, fields in enumerate(parsed.extra):
    transforms.append(_extra(f"data.extra[{i}]", fields))
  if not transforms:
    raise errors.UserError(
      "config.data makes no fields: give at least one of data.image, "
      "data.text, data.label and data.extra."
    )
  pipeline = Pipeline(
    source,
    transforms,
    name=parsed.source,
    split=parsed.split,
    tokenizer=tokenizer,
    class_names=class_names,
    cache_mib=parsed.cache_mib,
  )
  _check_first(pipeline)
  return pipeline


def _image(fields: Mapping[str, Any]) -> list[Transform]:
  own = {name: value for name, value in fields.items() if name != "mask"}
  _check_keys("data.image", own, image.ImageTransform, also=("mask",))
  transform = registry.construct("data.image", image.ImageTransform, own)
  mask = dict(fields.get("mask") or {})
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


def _text(
  fields: Mapping[str, Any],
) -> tuple[TextTokenizer, list[Transform]]:
  path = "data.text"
  known = registry.field_names(text.Caption) or []
  caption = {name: value for name, value in fields.items() if name in known}
  own = {
    name: value
    for name, value in fields.items()
    if name not in (*known, "mask", "tokenizer")
  }
  _check_keys(
    path, own, text.TextTransform, also=("mask", *known), without=("caption",)
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
  first = pipeline.example(0, 0, 0, train=True)
  for name, spec in pipeline.specs.items():
    value = np.asarray(first[name])
    if not spec.matches(value[None]):
      raise errors.UserError(
        f"The field {name!r} of {pipeline.name!r} is declared as {spec}, but "
        f"an example holds {value.dtype}{list(value.shape)}."
      )


def _tuples(value: Any) -> Any:
  # Configs that went through JSON have lists where they had tuples.
  if isinstance(value, Mapping):
    return {name: _tuples(item) for name, item in value.items()}
  if isinstance(value, (list, tuple)):
    return tuple(_tuples(item) for item in value)
  return value
