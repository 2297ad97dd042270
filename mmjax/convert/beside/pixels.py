"""How pictures are made numbers: in configs, and in a file beside them."""

from collections.abc import Callable, Mapping
from typing import Any

from mmjax.convert.family import PREPROCESSOR, Source

HALF = [0.5, 0.5, 0.5]
_IMAGENET = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLIP = (
  [0.48145466, 0.4578275, 0.40821073],
  [0.26862954, 0.26130258, 0.27577711],
)


def complete(source: Source, has: set[str]) -> dict[str, Any]:
  """How pixels are normalised, which a file of its own says; else -1 to 1."""
  return _complete(source, HALF, HALF)


def complete_imagenet(source: Source, has: set[str]) -> dict[str, Any]:
  """The same; by default with the moments of ImageNet."""
  return _complete(source, *_IMAGENET)


def complete_clip(source: Source, has: set[str]) -> dict[str, Any]:
  """The same; by default with those of what CLIP was trained on."""
  return _complete(source, *CLIP)


def complete_flava(source: Source, has: set[str]) -> dict[str, Any]:
  """The same, without its tokenizer, which is not made on the way back."""
  return {**complete_clip(source, has), "init_codebook": False}


def _complete(source, mean, std):
  said = source.beside.get(PREPROCESSOR, {})
  return {
    "image_mean": said.get("image_mean", list(mean)),
    "image_std": said.get("image_std", list(std)),
  }


def file(
  kind: str, tower: str = "", keeps_shape: bool = False
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
  """That file, of an image processor of `transformers`.

  Args:
    kind: its class.
    tower: whose config has the size, as "vision_config.".
    keeps_shape: it resizes the shorter side, and pads.
  """

  def files(config):
    side = config[f"{tower}image_size"]
    size: dict[str, Any] = dict(size=dict(height=side, width=side))
    if keeps_shape:
      divisor = config[f"{tower}patch_size"]
      size = dict(
        size=dict(shortest_edge=side), size_divisor=divisor, do_pad=True
      )
    return {
      PREPROCESSOR: dict(
        image_processor_type=kind,
        do_resize=True,
        **size,
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=config["image_mean"],
        image_std=config["image_std"],
      )
    }

  return files
