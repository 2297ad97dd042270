"""Clips: decode, choose frames, crop all of them alike; hide tubelets."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image, ImageFilter, UnidentifiedImageError

from mmjax.core import batch, errors
from mmjax.core.batch import FieldSpec
from mmjax.data import masks
from mmjax.data.transforms import color, image

# By which frames are chosen, what becomes of clips that are too short, and
# which tubelets are hidden.
STRATEGIES = ("uniform", "segments", "random_segment")
SHORT = ("error", "loop", "repeat_last")
MASKS = ("random", "tube", "blockwise")
# Where in a file which bytes stand: mp4 and mov, webm and mkv, avi.
FILMS = ((4, b"ftyp"), (0, b"\x1aE\xdf\xa3"), (8, b"AVI "))


def decode(
  encoded: bytes, max_pixels: int = image.MAX_PIXELS
) -> UInt8[np.ndarray, "f h w 3"]:
  """Decodes all frames of a clip to RGB; transparency is put on white.

  Animated WebP and GIF by Pillow; mp4, webm and other films by PyAV (`av`),
  turned upright as they say. A still picture is a clip of one frame.

  Raises:
    ValueError: not a clip, damaged, or of more than `max_pixels`, over all
      frames.
    UserError: a film, and PyAV is not installed.
  """
  try:
    animation = Image.open(io.BytesIO(encoded))
  except UnidentifiedImageError:
    return _decode_film(encoded, max_pixels)
  except Exception as e:
    raise ValueError(f"not a clip that Pillow reads: {e}") from e
  with animation:
    return _decode_animation(animation, max_pixels)


def _decode_animation(animation, max_pixels):
  try:
    count = getattr(animation, "n_frames", 1)
    width, height = animation.size
    _check_size(width, height, count, max_pixels)
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
      animation.seek(i)
      if animation.has_transparency_data:
        rgba = animation.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        frames[i] = Image.alpha_composite(white, rgba).convert("RGB")
      else:
        frames[i] = animation.convert("RGB")
    return frames
  except ValueError:
    raise
  # Decoders of damaged files raise nearly anything.
  except Exception as e:
    raise ValueError(f"not a clip that Pillow reads: {e}") from e


def _decode_film(encoded, max_pixels):
  try:
    import av
  except ImportError as e:
    if not any(encoded[at : at + len(b)] == b for at, b in FILMS):
      raise ValueError("not a clip that Pillow reads") from e
    raise errors.UserError(
      "mp4, webm and other films are decoded by PyAV, which is not installed: "
      "pip install 'mmjax[video]'."
    ) from e
  frames: list[np.ndarray] = []
  try:
    with av.open(io.BytesIO(encoded)) as container:
      if not container.streams.video:
        raise ValueError("no frames: the film has no video stream")
      stream = container.streams.video[0]
      codec = stream.codec_context
      if codec is None:
        raise ValueError("not a film that PyAV reads: no codec is known for it")
      # 0 frames: the container does not say, as webm never does.
      _check_size(codec.width, codec.height, stream.frames, max_pixels)
      for frame in container.decode(stream):
        _check_size(frame.width, frame.height, len(frames) + 1, max_pixels)
        pixels = frame.to_ndarray(format="rgb24")
        # Degrees counterclockwise, as `rot90` turns.
        frames.append(np.rot90(pixels, frame.rotation // 90))
  except av.FFmpegError as e:
    raise ValueError(f"not a film that PyAV reads: {e}") from e
  if not frames:
    raise ValueError("no frames: the film's video stream is empty")
  return np.stack(frames)


def _check_size(width, height, count, max_pixels):
  if width * height * count > max_pixels:
    raise ValueError(
      f"{count} frames of {width}x{height} pixels, more than "
      f"max_pixels={max_pixels}"
    )


@dataclass(frozen=True, kw_only=True)
class VideoTransform(image.ImageTransform):
  """Adds `video`: uint8, `num_frames` x `size` x `size` x 3.

  Frames are counted, whatever time lies between them. What is done to pixels
  is what `ImageTransform` does; it is drawn once and done to all frames.
  """

  num_frames: int = 8
  # "uniform": frames in the middle of `num_frames` equal parts of the clip.
  # "segments": in training a random frame of each part, else those of
  # "uniform" (Wang et al. 2016, arXiv:1608.00859, 3.1). "random_segment":
  # frames `stride` apart; in training from a random one on, else around the
  # middle of the clip.
  strategy: str = "uniform"
  stride: int = 1  # Frames from one to the next, of "random_segment".
  # Clips shorter than asked for: an error; as if they went on from their
  # start; or as if their last frame stayed.
  short: str = "error"
  field: str = "clip"  # Field of the source: encoded bytes or uint8 f h w 3.
  max_pixels: int = image.MAX_PIXELS  # Over all frames of the source's clip.

  def __post_init__(self):
    super().__post_init__()
    for kind, value, known in (
      ("strategy of frames", self.strategy, STRATEGIES),
      ("treatment of short clips", self.short, SHORT),
    ):
      if value not in known:
        raise errors.unknown(kind, value, known)
    for name in ("num_frames", "stride"):
      if getattr(self, name) < 1:
        raise errors.UserError(
          f"{name}={getattr(self, name)}, expected at least 1."
        )
    if self.stride > 1 and self.strategy != "random_segment":
      raise errors.UserError(
        f"stride={self.stride} is of strategy='random_segment', not of "
        f"{self.strategy!r}, which spreads frames over the whole clip."
      )

  @property
  def fixed(self) -> bool:
    """Whether training sees each clip as evaluation does."""
    return super().fixed and self.strategy == "uniform"

  def specs(self) -> dict[str, FieldSpec]:
    shape = (self.num_frames, self.size, self.size, 3)
    doc = "frames of pixels, RGB"
    return {"video": FieldSpec(shape, "uint8", "f h w c", doc)}

  def prepare(self, example: Mapping[str, Any]) -> dict[str, Any]:
    """Decodes all frames.

    Raises:
      UserError: the source has no such field.
      ValueError: what it holds is not a clip.
    """
    if self.field not in example:
      raise errors.unknown("video field of the source", self.field, example)
    frames = example[self.field]
    if isinstance(frames, bytes):
      return {**example, self.field: decode(frames, self.max_pixels)}
    if not _is_clip(frames):
      got = type(frames).__name__
      if isinstance(frames, np.ndarray):
        got = batch.describe(frames)
      raise ValueError(
        f"field {self.field!r} holds {got}, expected encoded bytes or "
        "uint8[f, h, w, 3]"
      )
    return dict(example)

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    frames = self.prepare(example)[self.field]
    frames = frames[self.indices(len(frames), rng, train=train)]
    height, width = frames.shape[1:3]
    if not train:
      if (height, width) != (self.size, self.size):
        frames = np.stack([image.resize(f, self.size) for f in frames])
      return {**example, "video": frames}
    box = self._draw_box(rng, width, height) if self.crops else None
    pictures = [image.resize(f, self.size, box) for f in frames]
    if self.rand_augment.num_ops:
      drawn = self.rand_augment.draw(rng)
      pictures = [self.rand_augment(picture, drawn) for picture in pictures]
    if self.blur:
      blur = ImageFilter.GaussianBlur(self.blur * float(rng.random()))
      pictures = [picture.filter(blur) for picture in pictures]
    frames = np.stack(pictures)
    if self.color_jitter or self.hue_jitter:
      # Frames below each other are one picture: one mean for the contrast.
      column = Image.fromarray(frames.reshape(-1, self.size, 3))
      column = color.jitter_colors(
        rng, column, self.color_jitter, self.hue_jitter
      )
      frames = np.asarray(column).reshape(frames.shape)
    return {**example, "video": self.mirror(frames, example, rng)}

  def indices(
    self, length: int, rng: np.random.Generator, *, train: bool
  ) -> Int[np.ndarray, " f"]:
    """Which of the `length` frames of a clip are taken.

    Raises:
      ValueError: the clip is shorter than asked for, and `short="error"`.
    """
    steps = np.arange(self.num_frames)
    segment = self.strategy == "random_segment"
    asked = int(steps[-1]) * self.stride + 1 if segment else self.num_frames
    if length < asked and self.short == "error":
      raise ValueError(
        f"the clip has {length} frames, {asked} are asked for; "
        "short='loop' or 'repeat_last' would fill it up"
      )
    whole = max(length, asked)
    if segment:
      spare = whole - asked
      start = int(rng.integers(spare + 1)) if train else spare // 2
      chosen = start + steps * self.stride
    else:
      draws = train and self.strategy == "segments"
      within = rng.random(self.num_frames) if draws else 0.5
      chosen = ((steps + within) * whole / self.num_frames).astype(int)
    if self.short == "loop":
      return chosen % length
    return np.minimum(chosen, length - 1)


def _is_clip(value: Any) -> bool:
  return (
    isinstance(value, np.ndarray)
    and value.dtype == np.uint8
    and value.ndim == 4
    and value.shape[3] == 3
    and value.size > 0
  )


@dataclass(frozen=True, kw_only=True)
class MaskVideo:
  """Adds `video_hidden`: the tubelets to hide, the same number each time.

  "random" hides any tubelets. "tube" hides the same places at all times, so
  that nothing can be copied from the next frame (VideoMAE, Tong et al. 2022,
  arXiv:2203.12602, 3.3), and "blockwise" likewise, in rectangles.
  """

  grid: tuple[int, int, int] = (4, 8, 8)  # Tubelets: times, rows, columns.
  rate: float = 0.9  # Share of the tubelets; VideoMAE's.
  strategy: str = "tube"

  def __post_init__(self):
    if self.strategy not in MASKS:
      raise errors.unknown("mask strategy", self.strategy, MASKS)
    masks.check_count(self.grid, self.rate, self.count)

  @property
  def count(self) -> int:
    times, rows, columns = self.grid
    if self.strategy == "random":
      return round(self.rate * times * rows * columns)
    return times * round(self.rate * rows * columns)

  def specs(self) -> dict[str, FieldSpec]:
    doc = "indices of hidden tubelets: by time, row, column, ascending"
    return {"video_hidden": FieldSpec((self.count,), "int32", "k", doc)}

  def facts(self) -> dict[str, Any]:
    """What the encoder has to agree with."""
    return {"video_grid": self.grid}

  def __call__(
    self,
    example: Mapping[str, Any],
    rng: np.random.Generator,
    *,
    train: bool,
  ) -> dict[str, Any]:
    del train  # Held-out losses hide tubelets too.
    times, rows, columns = self.grid
    places = rows * columns
    if self.strategy == "random":
      hidden = masks.random_mask(rng, (times, places), self.count)
    else:
      blocks = self.strategy == "blockwise"
      draw = masks.STRATEGIES["blockwise" if blocks else "random"]
      place = draw(rng, (rows, columns), self.count // times)
      start = np.arange(times, dtype=np.int32) * places
      hidden = (start[:, None] + place).reshape(-1)  # (times k)
    return {**example, "video_hidden": hidden}
