"""How pictures are made numbers: in configs, and in a file beside them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmjax.convert import lines
from mmjax.convert.family import Key, Source

HALF = [0.5, 0.5, 0.5]
IMAGENET = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])


def keys(path: str, tower: str = "", **defaults: Any) -> tuple[Key, ...]:
  """The size of pictures, and how `complete` found them normalised."""
  size = {k: dict(default=v) for k, v in defaults.items()}
  return (
    lines.key(
      f"{path}.image_size", f"{tower}image_size", **size.get("image_size", {})
    ),
    lines.key(
      f"{path}.patch_size", f"{tower}patch_size", **size.get("patch_size", {})
    ),
    lines.key(f"{path}.pixel_mean", "image_mean", into=tuple, back=list),
    lines.key(f"{path}.pixel_std", "image_std", into=tuple, back=list),
    lines.key("data.image.size", f"{tower}image_size"),
  )


def complete(
  source: Source,
  has: set[str],
  mean: Sequence[float] = HALF,
  std: Sequence[float] = HALF,
) -> dict[str, Any]:
  """How pixels are normalised stands in a file of its own."""
  said = source.beside.get(lines.PREPROCESSOR, {})
  return {
    "image_mean": said.get("image_mean", list(mean)),
    "image_std": said.get("image_std", list(std)),
  }


def file(
  kind: str, tower: str = ""
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  """That file, of an image processor of `transformers`."""

  def files(config):
    side = config[f"{tower}image_size"]
    return {
      lines.PREPROCESSOR: dict(
        image_processor_type=kind,
        do_resize=True,
        size=dict(height=side, width=side),
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=config["image_mean"],
        image_std=config["image_std"],
      )
    }

  return files
