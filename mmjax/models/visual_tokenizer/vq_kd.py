"""A tokenizer whose codes say what a teacher sees, not what pixels there are.

Source: BEiT v2, "vector-quantized knowledge distillation" (Peng et al. 2022,
arXiv:2208.06366), 3.1. The objective is `tokenizer_distillation`.
"""

from collections.abc import Mapping
from typing import Any

from mmjax.core import precision as precision_lib
from mmjax.models.visual_tokenizer.codebook import Codebook
from mmjax.models.visual_tokenizer.tokenizer import (
  VisualTokenizer,
  make_tokenizer,
)


def vq_kd(
  *,
  image_size: int,
  patch_size: int,
  feature_dim: int,
  num_codes: int = 8192,
  code_dim: int = 32,
  decay: float = 0.99,
  restart_after: int = 20,
  encoder_size: str | Mapping[str, Any] = "B",
  decoder_size: str | Mapping[str, Any] = "S",
  tubelet_frames: int = 1,
  clips: str = "middle_frame",
  num_frames: int | None = None,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> VisualTokenizer:
  """A tokenizer that decodes its codes to a teacher's patch features.

  Vectors and codes are of unit length, as in the paper. There, the decoder has
  three layers.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of what becomes one code, pixels; as many
      codes as the teacher has patches.
    feature_dim: channels of the teacher's features.
    num_codes: size of the codebook.
    code_dim: channels of a code.
    decay: of the moving averages, per step.
    restart_after: steps without use after which a code is moved.
    encoder_size: see `variants.resolve`.
    decoder_size: see `variants.resolve`.
    tubelet_frames: see `tokenizer.vq`.
    clips: see `tokenizer.vq`.
    num_frames: of the data's clips.
    precision: see `core.precision`.

  Raises:
    UserError: patches do not tile the image.
  """
  return make_tokenizer(
    Codebook(num_codes, code_dim, decay, restart_after, True),
    image_size=image_size,
    patch_size=patch_size,
    encoder_size=encoder_size,
    decoder_size=decoder_size,
    tubelet_frames=tubelet_frames,
    clips=clips,
    num_frames=num_frames,
    precision=precision,
    feature_dim=feature_dim,
  )
