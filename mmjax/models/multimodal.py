"""The one model: encoders, fusion, shared space, heads, visual tokenizer."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mmjax.core import errors
from mmjax.core.sequence import Sequence
from mmjax.models import heads as heads_lib
from mmjax.models.shared_space import SharedSpace
from mmjax.models.visual_tokenizer.tokenizer import Reconstruction

VISUAL = ("image", "video")


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
  # By modality; those of VISUAL without one have the visual tokenizer.
  tokenizers: Mapping[str, nn.Module] | None = None
  # Watches all calls within, as `nn.intercept_methods` has it: adapters.
  interceptor: Callable[..., Any] | None = None

  @nn.nowrap
  def init(self, *args: Any, **kwargs: Any) -> Any:
    """As of any module."""
    with self._watched():
      return super().init(*args, **kwargs)

  @nn.nowrap
  def apply(self, *args: Any, **kwargs: Any) -> Any:
    """As of any module."""
    with self._watched():
      return super().apply(*args, **kwargs)

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
    packed = any(s.packed is not None for s in sequences.values())
    if packed and not getattr(fusion, "keeps_packed", False):
      raise errors.UserError(
        f"A row holds several examples, which a {type(fusion).__name__} would "
        "mix: use the fusion 'joint', or leave data.text.pack out."
      )
    return fusion(sequences, train=train)

  def fuse_pairs(
    self, name: str, sequences: Mapping[str, Sequence], train: bool
  ) -> dict[str, Sequence]:
    """`fuse` of sequences that the caller put together.

    `name` tells the calls of a step apart, for randomness of their own.
    """
    del name
    return self.fuse(sequences, train=train)

  def pool(self, modality: str, sequence: Sequence) -> Float[Array, "b d"]:
    """One vector per example, as the modality's encoder pools.

    Raises:
      UserError: a row holds several examples.
    """
    if sequence.packed is not None:
      raise errors.UserError(
        f"A row of {modality!r} holds several examples, so one vector for the "
        "row means nothing: contrastive alignment, matching, classification "
        "and all else that pools needs rows of one. Set "
        "config.data.text.pack=False, for this task or evaluator."
      )
    return self._part("encoder", self.encoders, modality).pool(sequence)

  def project(self, modality: str, sequence: Sequence) -> Float[Array, "b s"]:
    """Pools and projects to the shared space; unit length."""
    return self._space()(modality, self.pool(modality, sequence))

  def temperature(self) -> dict[str, jax.Array]:
    """What makes logits of the shared space's similarities."""
    return self._space().temperature()

  def head(self, name: str, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The logits of a head."""
    head, given = self._head(name)
    return head(x, **given)

  def judge(
    self,
    name: str,
    x: Float[Array, "b n d"],
    labels: Int[Array, "b n"],
    judge: Callable[[Array, Array], Any],
  ) -> Any:
    """`judge(logits, labels)` of a head; see `heads.judge_in_parts`."""
    head, given = self._head(name)
    parts = heads_lib.num_parts(head, x)
    if parts == 1:
      return judge(head(x, **given), labels)
    return heads_lib.judge_in_parts(head, x, labels, judge, parts, **given)

  def _head(self, name):
    """A head, and what it is given besides tokens."""
    head = self._part("head", self.heads or {}, name)
    tied_to = getattr(head, "tied_to", "")
    if not tied_to:
      return head, {}
    if getattr(head, "tied_in", "encoders") == "decoders":
      part = self._part("decoder", self.decoders or {}, tied_to)
    else:
      part = self._part("encoder", self.encoders, tied_to)
    return head, {"table": part.table()}

  def restore(
    self, modality: str, sequence: Sequence, *, train: bool
  ) -> Sequence:
    """All tokens of a sequence, those that its encoder dropped too.

    Raises:
      UserError: no decoder does that.
    """
    if modality not in (self.decoders or {}):
      raise errors.UserError(
        f"The encoder of {modality!r} drops hidden tokens, and nothing puts "
        f"them back: set config.model.decoders.{modality} to "
        f"dict(name='patches'), or config.model.encoders.{modality}.hidden to "
        "'replace', or let the objective look at other modalities too: their "
        "fusion puts them back."
      )
    return self.decoders[modality](sequence, train=train)

  def patches(
    self, modality: str, inputs: Array, mask: Array | None = None
  ) -> Array:
    """What each token of a modality is made of, `b n q`."""
    encoder = self._part("encoder", self.encoders, modality)
    return encoder.cut(inputs, mask)

  def decode(self, name: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a decoder; see `models.decoders` for what each takes."""
    return self._part("decoder", self.decoders or {}, name)(*args, **kwargs)

  def teach(self, method: str, *args: Any, **kwargs: Any) -> Any:
    """Runs a method of the teacher."""
    teacher = self._need("teacher", self.teacher, "teacher")
    return getattr(teacher, method)(*args, **kwargs)

  def codes(
    self, inputs: Array, mask: Array | None = None, *, modality: str = "image"
  ) -> Int[Array, "b n"]:
    """The codes of a modality's tokenizer; no gradient flows through them."""
    tokenizer = self._tokenizer(modality)
    # Those of the user's own need not know masks.
    codes = (
      tokenizer.codes(inputs) if mask is None else tokenizer.codes(inputs, mask)
    )
    return jax.lax.stop_gradient(codes)

  def reconstruct(
    self, inputs: Array, *, train: bool, modality: str = "image"
  ) -> Reconstruction:
    """Pictures or clips through the tokenizer and back."""
    return self._tokenizer(modality)(inputs, train=train)

  def decode_codes(
    self, codes: Int[Array, "b n"], modality: str = "image"
  ) -> Float[Array, "b ..."]:
    """The pictures of codes, 0..1, or what else the tokenizer decodes to.

    Raises:
      UserError: the tokenizer only makes codes.
    """
    tokenizer = self._tokenizer(modality)
    if not hasattr(tokenizer, "decode_codes"):
      raise errors.UserError(
        f"The tokenizer of {modality!r}, a {type(tokenizer).__name__}, does "
        "not decode its codes; 'vq' and 'fsq' do."
      )
    return tokenizer.decode_codes(codes)

  def codebook_size(self, modality: str = "image") -> int:
    """Number of codes of a modality."""
    return self._tokenizer(modality).num_codes

  @nn.nowrap
  def _watched(self):
    if self.interceptor is None:
      return contextlib.nullcontext()
    return nn.intercept_methods(self.interceptor)

  def _space(self):
    return self._need("shared space", self.shared_space, "shared_dim")

  def _tokenizer(self, modality):
    if modality in (self.tokenizers or {}):
      return self.tokenizers[modality]
    if modality not in VISUAL:
      return self._part("tokenizer", self.tokenizers or {}, modality)
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
