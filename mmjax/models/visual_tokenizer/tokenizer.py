"""A quantising autoencoder, with a transformer either side of the codes.

Source: VQ-VAE (van den Oord et al. 2017) with the transformer encoder and
decoder of ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627), without its
adversarial loss. Quantisers are `codebook.Codebook` and `fsq.FiniteScalars`:
modules with `num_codes`, `code_dim`, `__call__(vectors, train=)` and
`lookup(codes)`.
"""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Bool, Float, Int, UInt8

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models import variants
from mmjax.models.encoders.video import tubelets
from mmjax.models.encoders.vit import normalize, patchify, unpatchify
from mmjax.models.layers.positions import from_sincos
from mmjax.models.layers.projection import Embedding, Projection
from mmjax.models.layers.transformer import Stack
from mmjax.models.visual_tokenizer.codebook import Codebook

CLIPS = ("middle_frame", "tubelets")  # What becomes a code of a clip.


@struct.dataclass
class Reconstruction:
  """A batch of pictures or clips, through the codes and back."""

  # 0..1, not clipped; None if the decoder makes features.
  image: Float[Array, "b *f h w c"] | None
  codes: Int[Array, "b n"]
  commitment: Float[Array, "b n"]
  restarted: Float[Array, ""]
  features: Float[Array, "b n d"] | None = None


class VisualTokenizer(nn.Module):
  """Pictures to a grid of codes, row by row, and back.

  With `num_frames`, clips to codes of tubelets: time slowest.
  """

  image_size: int  # Pixels.
  patch_size: int  # Pixels; one code a patch.
  codebook: nn.Module
  encoder_size: variants.Size
  decoder_size: variants.Size
  # Frames of a tubelet; of pictures' tokenizers, of the clips of which they
  # encode the middle one of every so many frames.
  tubelet_frames: int = 1
  precision: precision_lib.Precision = precision_lib.FLOAT32
  num_frames: int = 0  # Of clips; 0 = it is trained on pictures.
  feature_dim: int = 0  # Channels that the decoder makes; 0 = pixels.

  learned = True  # Has parameters to train.

  @property
  def grid(self) -> tuple[int, ...]:
    """Rows and columns of codes; of clips, times before them."""
    side = self.image_size // self.patch_size
    if self.num_frames:
      return self.num_frames // self.tubelet_frames, side, side
    return side, side

  @property
  def num_codes(self) -> int:
    """Size of the codebook."""
    return self.codebook.num_codes

  @property
  def modality(self) -> str:
    """The field that it is trained on."""
    return "video" if self.num_frames else "image"

  @property
  def identity(self) -> str:
    """What its codes depend on besides its variables."""
    return getattr(self.codebook, "identity", "")

  def setup(self):
    num_tokens = math.prod(self.grid)
    channels = 3 * self.patch_size**2  # Of a patch.
    if self.num_frames:
      channels *= self.tubelet_frames

    def tower(size):
      return Stack(
        size.num_layers, size.num_heads, size.mlp_dim, precision=self.precision
      )

    def project(features, *names):
      return Projection((features,), names, precision=self.precision)

    def positions(embed_dim):
      return Embedding(
        num_tokens,
        embed_dim,
        axes.POSITION,
        axes.EMBED,
        table_init=from_sincos(self.grid),
      )

    encoder, decoder = self.encoder_size, self.decoder_size
    self.patches = project(encoder.embed_dim, axes.PATCH, axes.EMBED)
    self.encoder_positions = positions(encoder.embed_dim)
    self.encoder = tower(encoder)
    self.to_code = project(self.codebook.code_dim, axes.EMBED, axes.CODE_DIM)
    self.from_code = project(decoder.embed_dim, axes.CODE_DIM, axes.EMBED)
    self.decoder_positions = positions(decoder.embed_dim)
    self.decoder = tower(decoder)
    if self.feature_dim:
      self.features = project(self.feature_dim, axes.EMBED, axes.PATCH)
    else:
      self.pixels = project(channels, axes.EMBED, axes.PATCH)

  def __call__(
    self, image: UInt8[Array, "b *f h w c"], *, train: bool
  ) -> Reconstruction:
    """Encodes, quantises and decodes."""
    quantized = self.codebook(self._vectors(image), train=train)
    decoded = self._decode(quantized.vectors)
    return Reconstruction(
      None if self.feature_dim else decoded,
      quantized.codes,
      quantized.commitment,
      quantized.restarted,
      decoded if self.feature_dim else None,
    )

  def codes(
    self,
    image: UInt8[Array, "b *f h w c"],
    mask: Bool[Array, "b ..."] | None = None,
  ) -> Int[Array, "b n"]:
    """The codes of pictures, or of clips: time slowest, as tubelets go."""
    del mask  # Pictures are whole.
    if image.ndim == 4 or self.num_frames:
      return self.codebook(self._vectors(image), train=False).codes
    b, f, *pixels = image.shape
    step = self.tubelet_frames
    if f % step:
      raise errors.UserError(
        f"A clip of {f} frames does not split into tubelets of "
        f"tubelet_frames={step}."
      )
    frames = image[:, step // 2 :: step].reshape(-1, *pixels)  # (b f/t) h w c
    codes = self.codebook(self._vectors(frames), train=False).codes
    return codes.reshape(b, -1)  # b (f/t n)

  def decode_codes(
    self, codes: Int[Array, "b n"]
  ) -> Float[Array, "b *f h w c"] | Float[Array, "b n d"]:
    """The pictures of codes, 0..1, or what else the decoder makes of them."""
    decoded = self._decode(self.codebook.lookup(codes))
    return decoded if self.feature_dim else jnp.clip(decoded, 0.0, 1.0)

  def _vectors(self, image):
    """What is quantised, one vector a token."""
    side = self.image_size
    want = (self.num_frames, side, side) if self.num_frames else (side, side)
    if image.shape[1:-1] != want:
      raise errors.UserError(
        f"The visual tokenizer takes {_size(want)}, got "
        f"{_size(image.shape[1:-1])}."
      )
    pixels = normalize(image)
    if self.num_frames:
      cut = tubelets(pixels, self.tubelet_frames, self.patch_size)  # b n q
    else:
      cut = patchify(pixels, self.patch_size)  # b n q
    x = self.patches(cut)  # b n d
    x = x + self.encoder_positions.rows()[None].astype(x.dtype)
    mask = jnp.ones((x.shape[0], 1, x.shape[1]), bool)
    return self.to_code(self.encoder(x, mask=mask, train=False))

  def _decode(self, vectors):
    x = self.from_code(vectors)
    x = x + self.decoder_positions.rows()[None].astype(x.dtype)
    mask = jnp.ones((x.shape[0], 1, x.shape[1]), bool)
    x = self.decoder(x, mask=mask, train=False)
    if self.feature_dim:
      return self.features(x).astype(jnp.float32)
    x = self.pixels(x).astype(jnp.float32)
    if self.num_frames:
      x = join_tubelets(x, self.grid, self.tubelet_frames, self.patch_size)
    else:
      x = unpatchify(x, self.grid, self.patch_size)
    return x * 0.5 + 0.5  # From -1..1 to 0..1.


def _size(shape):
  """E.g. "8 frames of 64x64 pixels"."""
  *frames, height, width = shape
  pixels = f"{height}x{width} pixels"
  return f"{frames[0]} frames of {pixels}" if frames else pixels


def join_tubelets(
  cut: Float[Array, "b n q"],
  grid: tuple[int, int, int],
  frames: int,
  patch_size: int,
) -> Float[Array, "b f h w c"]:
  """Inverse of `tubelets` for a grid of (times, rows, columns)."""
  times, rows, columns = grid
  b, p = cut.shape[0], patch_size
  x = cut.reshape(b, times, rows, columns, frames, p, p, -1)
  x = x.transpose(0, 1, 4, 2, 5, 3, 6, 7)  # b times t rows p columns p c
  return x.reshape(b, times * frames, rows * p, columns * p, -1)


def make_tokenizer(
  codebook: nn.Module,
  *,
  image_size: int,
  patch_size: int,
  encoder_size: str | Mapping[str, Any],
  decoder_size: str | Mapping[str, Any],
  tubelet_frames: int,
  clips: str,
  num_frames: int | None,
  precision: precision_lib.Precision,
  feature_dim: int = 0,
) -> VisualTokenizer:
  """A tokenizer around a quantiser; the arguments are those of `vq`.

  Raises:
    UserError: patches or tubelets do not tile what they are cut from.
  """
  if patch_size < 1 or image_size % patch_size:
    raise errors.UserError(
      f"image_size={image_size} is no multiple of patch_size={patch_size}."
    )
  if clips not in CLIPS:
    raise errors.unknown("treatment of clips", clips, CLIPS)
  frames = 0
  if clips == "tubelets":
    if not num_frames or num_frames % tubelet_frames:
      raise errors.UserError(
        f"clips='tubelets' of tubelet_frames={tubelet_frames} need clips of a "
        f"multiple of that; the data have num_frames={num_frames or 0}."
      )
    frames = num_frames
  return VisualTokenizer(
    image_size,
    patch_size,
    codebook,
    variants.resolve(encoder_size),
    variants.resolve(decoder_size),
    tubelet_frames,
    precision,
    frames,
    feature_dim,
  )


def vq(
  *,
  image_size: int,
  patch_size: int,
  num_codes: int = 8192,
  code_dim: int = 32,
  decay: float = 0.98,
  restart_after: int = 20,
  unit_codes: bool = True,
  encoder_size: str | Mapping[str, Any] = "B",
  decoder_size: str | Mapping[str, Any] = "B",
  tubelet_frames: int = 1,
  clips: str = "middle_frame",
  num_frames: int | None = None,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> VisualTokenizer:
  """A visual tokenizer with an EMA codebook.

  Args:
    image_size: height and width, pixels.
    patch_size: height and width of what becomes one code, pixels.
    num_codes: size of the codebook.
    code_dim: channels of a code.
    decay: of the moving averages, per step.
    restart_after: steps without use after which a code is moved.
    unit_codes: keep vectors and codes on the unit sphere.
    encoder_size: see `variants.resolve`.
    decoder_size: see `variants.resolve`.
    tubelet_frames: of a clip, so many frames get one code a patch: as many
      codes as its encoder has tubelets.
    clips: "middle_frame", a tokenizer of pictures, which encodes the middle
      one of the frames of each tubelet; "tubelets", one of clips, which
      encodes all of them.
    num_frames: of the data's clips.
    precision: see `core.precision`.

  Raises:
    UserError: patches do not tile the image.
  """
  return make_tokenizer(
    Codebook(num_codes, code_dim, decay, restart_after, unit_codes),
    image_size=image_size,
    patch_size=patch_size,
    encoder_size=encoder_size,
    decoder_size=decoder_size,
    tubelet_frames=tubelet_frames,
    clips=clips,
    num_frames=num_frames,
    precision=precision,
  )
