"""A vector-quantised autoencoder for pictures, with a transformer either side.

Source: VQ-VAE (van den Oord et al. 2017) with the transformer encoder and
decoder of ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627), without its
adversarial loss.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from flax import struct
from jaxtyping import Array, Float, Int, UInt8

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.models import variants
from mmjax.models.encoders.vit import normalize, patchify, unpatchify
from mmjax.models.layers.positions import from_sincos
from mmjax.models.layers.projection import Embedding, Projection
from mmjax.models.layers.transformer import Stack
from mmjax.models.visual_tokenizer.codebook import Codebook


@struct.dataclass
class Reconstruction:
  """A batch of pictures, through the codes and back."""

  image: Float[Array, "b h w c"]  # 0..1, not clipped.
  codes: Int[Array, "b n"]
  commitment: Float[Array, "b n"]
  restarted: Float[Array, ""]


class VisualTokenizer(nn.Module):
  """Pictures to a grid of codes, row by row, and back."""

  image_size: int  # Pixels.
  patch_size: int  # Pixels; one code a patch.
  codebook: Codebook
  encoder_size: variants.Size
  decoder_size: variants.Size
  # Of a clip, the middle one of every so many frames is encoded.
  tubelet_frames: int = 1
  precision: precision_lib.Precision = precision_lib.FLOAT32

  @property
  def grid(self) -> tuple[int, int]:
    """Rows and columns of codes."""
    side = self.image_size // self.patch_size
    return side, side

  def setup(self):
    num_tokens = self.grid[0] * self.grid[1]

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
    self.pixels = project(3 * self.patch_size**2, axes.EMBED, axes.PATCH)

  def __call__(
    self, image: UInt8[Array, "b h w c"], *, train: bool
  ) -> Reconstruction:
    """Encodes, quantises and decodes."""
    quantized = self.codebook(self._vectors(image), train=train)
    return Reconstruction(
      self._decode(quantized.vectors),
      quantized.codes,
      quantized.commitment,
      quantized.restarted,
    )

  def codes(self, image: UInt8[Array, "b *f h w c"]) -> Int[Array, "b n"]:
    """The codes of pictures, or of clips: time slowest, as tubelets go."""
    if image.ndim == 4:
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

  def decode_codes(self, codes: Int[Array, "b n"]) -> Float[Array, "b h w c"]:
    """The pictures of codes, 0..1."""
    return jnp.clip(self._decode(self.codebook.lookup(codes)), 0.0, 1.0)

  def _vectors(self, image):
    if image.shape[1:3] != (self.image_size, self.image_size):
      raise errors.UserError(
        f"The visual tokenizer takes {self.image_size}x{self.image_size} "
        f"pixels, got {image.shape[1]}x{image.shape[2]}."
      )
    x = self.patches(patchify(normalize(image), self.patch_size))  # b n d
    x = x + self.encoder_positions.rows()[None].astype(x.dtype)
    mask = jnp.ones((x.shape[0], 1, x.shape[1]), bool)
    return self.to_code(self.encoder(x, mask=mask, train=False))

  def _decode(self, vectors):
    x = self.from_code(vectors)
    x = x + self.decoder_positions.rows()[None].astype(x.dtype)
    mask = jnp.ones((x.shape[0], 1, x.shape[1]), bool)
    x = self.pixels(self.decoder(x, mask=mask, train=False))
    x = unpatchify(x.astype(jnp.float32), self.grid, self.patch_size)
    return x * 0.5 + 0.5  # From -1..1 to 0..1.


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
    tubelet_frames: of a clip, the middle one of every so many frames is
      encoded: as many codes as its encoder has tubelets.
    precision: see `core.precision`.

  Raises:
    UserError: patches do not tile the image.
  """
  if image_size % patch_size:
    raise errors.UserError(
      f"image_size={image_size} is no multiple of patch_size={patch_size}."
    )
  return VisualTokenizer(
    image_size,
    patch_size,
    Codebook(num_codes, code_dim, decay, restart_after, unit_codes),
    variants.resolve(encoder_size),
    variants.resolve(decoder_size),
    tubelet_frames,
    precision,
  )
