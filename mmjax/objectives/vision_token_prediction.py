"""Vision token prediction (masked image modelling on discrete codes)."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from mmjax.core import errors
from mmjax.core.batch import SEVERAL, FieldSpec
from mmjax.core.sequence import membership
from mmjax.objectives import hidden, losses


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionTokenPrediction:
  """Predicts the tokenizer's codes of hidden patches.

  Source: BEiT (Bao et al. 2022, arXiv:2106.08254), eq. 1; given text as in
  BEiT-3 and FLAVA. The loss is cross-entropy at hidden patches only; the
  tokenizer is frozen and sees the whole picture. Hidden patches are replaced
  (BEiT), or dropped from the encoder, to come back in the fusion or, alone, in
  the decoder of the field (MAE, He et al. 2022, arXiv:2111.06377).

  The same for all that has patches and a tokenizer: the tubelets of clips
  (`image="video"`), the patches of spectrograms (`image="audio"`), the patches
  of the pictures of a row (`image="images"`).
  """

  image: str = "image"  # Field to predict: pictures, clips or recordings.
  given: tuple[str, ...] = ("text",)  # Modalities it may look at.
  head: str = "vtp"
  head_kind: str = "token"  # Or "linear", as BEiT has it.
  head_activation: str = "gelu_tanh"  # Of "token", see `models.heads`.
  head_norm_epsilon: float = 1e-6
  # The encoder sees what the tokenizer makes of the visible codes, as it does
  # where pictures are made code by code (`code_logits`); needs a tokenizer
  # that decodes to pixels. False: it sees the picture itself.
  decoded: bool = False

  needs_frozen = ("visual_tokenizer",)  # Parts that must not be trained.

  def __call__(self, apply, batch, *, rng, train: bool):
    del rng, train
    seen = apply
    if self.decoded:
      codes = apply("codes", self.image)
      seen = self._decoded(apply, codes, batch[f"{self.image}_hidden"])
    sequence = hidden.masked_sequence(seen, self.image, self.given)
    positions = hidden.positions(batch, self.image, sequence.num_content)
    logits = apply("head", self.head, sequence.take(positions))  # b k v
    codes = apply("codes", self.image)  # b n
    hidden.check_count(sequence, codes.shape[1], "The tokenizer")
    labels = jnp.take_along_axis(codes, positions, axis=1)  # b k
    mask = hidden.hidden_mask(batch, self.image)
    loss = losses.masked_sum(losses.cross_entropy(logits, labels), mask)
    return loss, {"accuracy": losses.accuracy(logits, labels, mask)}

  def code_logits(
    self, apply, codes: Int[Array, "b n"], positions: Int[Array, "b k"]
  ) -> Float[Array, "b n v"]:
    """What each code may be, given the others and what else it looks at.

    Args:
      apply: on a batch of what is given.
      codes: of a whole picture; what stands at `positions` is not used.
      positions: of the codes that are not known; may repeat themselves.
    """
    seen = self._decoded(apply, codes, positions)
    sequence = hidden.masked_sequence(seen, self.image, self.given)
    everywhere = jnp.broadcast_to(jnp.arange(codes.shape[1])[None], codes.shape)
    return apply("head", self.head, sequence.take(everywhere))

  def _decoded(self, apply, codes, positions):
    """The model on the pixels of codes, and some positions hidden."""
    # Decoders mix codes: so that nothing of a hidden one shows beside it, all
    # of these are 0.
    is_hidden = membership(positions, codes.shape[1])  # b n
    known = jnp.where(is_hidden, 0, codes)
    pixels = jax.lax.stop_gradient(apply("decode_codes", known, self.image))
    if self.image != "image" or pixels.ndim != 4:
      raise errors.UserError(
        f"vision_token_prediction: codes of {self.image!r} have to be decoded "
        "to pictures, which its tokenizer does not do. Use one that was "
        "trained on pixels, e.g. 'vq', or set decoded=False."
      )
    pixels = jnp.round(pixels * 255.0).astype(jnp.uint8)
    return apply.replaced(image=pixels, image_hidden=positions)

  def fields(self, info):
    del info
    fields = hidden.hidden_fields(self.image, *self.given)
    if self.image in SEVERAL:  # Pictures of a row, each with its own.
      several = FieldSpec((None, None), "int32", "m k", "positions in each")
      fields[f"{self.image}_hidden"] = several
      fields[f"{self.image}_mask"] = FieldSpec((None,), "bool", "m", "real")
    return fields

  def heads(self, info):
    num_codes = info.num_codes(self.image)
    if not num_codes:
      raise errors.UserError(
        f"vision_token_prediction: nothing makes codes of {self.image!r}. Set "
        "config.model.visual_tokenizer, config.model.tokenizers."
        f"{self.image}, or config.data.codes."
      )
    head: dict[str, Any] = {"name": self.head_kind, "num_classes": num_codes}
    if self.head_activation != "gelu_tanh":
      head["activation"] = self.head_activation
    if self.head_norm_epsilon != 1e-6:
      head["norm_epsilon"] = self.head_norm_epsilon
    return {self.head: head}

  def chance(self, info, batch_size):
    """Ln K: every code of the codebook is as likely."""
    del batch_size
    return math.log(info.num_codes(self.image))
