"""The one model: encoders, fusion, shared space, heads, visual tokenizer."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.models.shared_space import SharedSpace
from mmjax.models.visual_tokenizer.tokenizer import Reconstruction


class MultimodalModel(nn.Module):
  """Any subset of modalities, towers and heads, called by method name.

  Only what is called during `init` gets parameters: so a model has exactly
  the parameters that its objectives use.

  Raises:
    UserError: a method needs a part that this model lacks; says which.
  """

  encoders: Mapping[str, nn.Module]
  fusion: nn.Module | None = None
  shared_space: SharedSpace | None = None
  heads: Mapping[str, nn.Module] | None = None
  visual_tokenizer: nn.Module | None = None
  decoders: Mapping[str, nn.Module] | None = None
  teacher: nn.Module | None = None  # A model like this one, frozen.

  def encode(
    self,
    modality: str,
    inputs: Array,
    *,
    mask: Array | None = None,
    hidden: Array | None = None,
    train: bool,
    **optional: Array,
  ) -> Sequence:
    """Encodes one field of the batch; see `encoders.encoder.Encoder`."""
    encoder = self._part("encoder", self.encoders, modality)
    return encoder(inputs, mask=mask, hidden=hidden, train=train, **optional)

  def fuse(
    self, sequences: Mapping[str, Sequence], *, train: bool
  ) -> dict[str, Sequence]:
    """Lets modalities attend to each other."""
    fusion = self._need("fusion", self.fusion, "fusion")
    return fusion(sequences, train=train)

  def pool(self, modality: str, sequence: Sequence) -> Float[Array, "b d"]:
    """One vector per example, as the modality's encoder pools."""
    return self._part("encoder", self.encoders, modality).pool(sequence)

  def project(self, modality: str, sequence: Sequence) -> Float[Array, "b s"]:
    """Pools and projects to the shared space; unit length."""
    return self._space()(modality, self.pool(modality, sequence))

  def temperature(self) -> dict[str, jax.Array]:
    """What the shared space's similarities are multiplied by."""
    return {"scale": self._space().scale()}

  def head(self, name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logits of a head."""
    head = self._part("head", self.heads or {}, name)
    tied_to = getattr(head, "tied_to", "")
    if not tied_to:
      return head(x)
    encoder = self._part("encoder", self.encoders, tied_to)
    return head(x, table=encoder.table())

  def decode(self, name: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a decoder; see `models.decoders` for what each takes."""
    return self._part("decoder", self.decoders or {}, name)(*args, **kwargs)

  def teach(self, method: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a method of the teacher."""
    teacher = self._need("teacher", self.teacher, "teacher")
    return getattr(teacher, method)(*args, **kwargs)

  def codes(self, image: Array) -> Int[Array, "b n"]:
    """The visual tokenizer's codes; no gradient flows through them."""
    return jax.lax.stop_gradient(self._tokenizer().codes(image))

  def reconstruct(self, image: Array, *, train: bool) -> Reconstruction:
    """Pictures through the visual tokenizer and back."""
    return self._tokenizer()(image, train=train)

  def decode_codes(self, codes: Int[Array, "b n"]) -> Float[Array, "b h w c"]:
    """The pictures of codes, 0..1."""
    return self._tokenizer().decode_codes(codes)

  def codebook_size(self) -> int:
    """Number of visual codes."""
    return self._tokenizer().codebook.num_codes

  def _space(self):
    return self._need("shared space", self.shared_space, "shared_dim")

  def _tokenizer(self):
    return self._need(
      "visual tokenizer", self.visual_tokenizer, "visual_tokenizer"
    )

  def _part(self, kind, table, name):
    if name not in table:
      raise errors.unknown(kind, name, table)
    return table[name]

  def _need(self, what, part, field):
    if part is None:
      raise errors.UserError(
        f"This model has no {what}: set config.model.{field}."
      )
    return part
