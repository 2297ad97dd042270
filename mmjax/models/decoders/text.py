"""Text decoder: predicts each token from those before it and a context."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence
from mmjax.models import variants
from mmjax.models.decoders import inline
from mmjax.models.fusion.inputs import fusion_inputs
from mmjax.models.layers.attention import CACHE
from mmjax.models.layers.hidden import mask_token
from mmjax.models.layers.options import VIT, StackOptions, stack_options
from mmjax.models.layers.positions import position_table, rotary_angles
from mmjax.models.layers.projection import Embedding
from mmjax.models.layers.transformer import Stack

# How the decoder reads encoded inputs: every layer attends to them (Vaswani
# et al. 2017, CoCa), or they stand before the text in one stack (SimVLM), or
# within it, where the text leaves places for them (LLaVA).
CONTEXTS = ("cross_attention", "inline", "prefix")
IMAGES = ("image", "images")  # Inputs that `inline.pool` is for.


class TextDecoder(nn.Module):
  """Embeds a text and mixes it causally; without a context a GPT.

  Sources: Vaswani et al. 2017, 3.1; with a context by "cross_attention" as in
  CoCa (Yu et al. 2022, arXiv:2205.01917, 3.2), by "prefix" as in SimVLM (Wang
  et al. 2022, arXiv:2108.10904, 3.1) and PaliGemma (Beyer et al. 2024,
  arXiv:2407.07726, 3.1), where the prefix sees all of itself. Several inputs
  stand one after the other, each marked by its own embedding. By "inline"
  their tokens take the places of tokens of the text (LLaVA, Liu et al. 2023,
  arXiv:2304.08485, 4.1).
  """

  vocab_size: int
  max_tokens: int  # Rows of the position table.
  size: variants.Size
  positions: str = "learned"  # See `layers.positions.KINDS`.
  context: str = "cross_attention"  # See `CONTEXTS`.
  image_grid: tuple[int, int] | None = None  # Tokens of a picture; inline.
  image_pool: int = 1  # See `inline.pool`.
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32

  def setup(self):
    self.tokens = Embedding(
      self.vocab_size, self.size.embed_dim, axes.VOCAB, axes.EMBED
    )

  @nn.compact
  def __call__(
    self,
    inputs: Int[Array, "b t"],
    context: Mapping[str, Sequence],
    *,
    mask: Bool[Array, "b t"] | None = None,
    positions: Int[Array, "b t"] | None = None,
    prefix: Int[Array, " b"] | None = None,
    parallel: Bool[Array, " b"] | None = None,
    present: Bool[Array, " b"] | None = None,
    segments: Int[Array, "b t"] | None = None,
    places: Int[Array, "b t"] | None = None,
    cache_size: int = 0,
    train: bool,
  ) -> Sequence:
    """Returns the features of which those at i predict token i + 1.

    With `cache_size`, what attention reads is kept in the collection "cache",
    of so many tokens of the text. A call that finds it goes on from there: it
    takes the next tokens, their `positions` and no context, and writes over
    what stood at these positions (the padding of a shorter text).

    Args:
      inputs: token ids.
      context: encoded inputs by name, or none.
      mask: True where `inputs` is real; None = everywhere.
      positions: of each token in its text; None = 0, 1, 2, ...
      prefix: so many tokens at the start see each other, later ones too.
      parallel: True for texts of which no token is seen: each is replaced by
        the parameter `mask_token`, and all see each other, padding included,
        so that the length isn't told either (CapPa, Tschannen et al. 2023,
        arXiv:2306.07915, 3).
      present: False for examples that lack the text.
      segments: several texts share a row; a token sees those of its own.
      places: which token of the context, counted over all its inputs, stands
        there instead; -1 = the text's own. For context="inline" only.
      cache_size: tokens of the longest text that is gone on with; 0 = none.
      train: dropout and stochastic depth are on.
    """
    if present is not None:
      inputs = jnp.where(present[:, None], inputs, 0)
    goes_on = bool(cache_size) and self.has_variable(CACHE, "given_mask")
    placed = None
    if context and not goes_on:
      inline.check(self.context, context, places is not None)
    if context and places is not None:
      placed = _join(self._given(self._pooled(context))), places
    text = self._embed(inputs, mask, positions, parallel, present, placed)
    num_tokens = inputs.shape[1]
    if goes_on:
      return text.replace(x=self._go_on(text, positions, cache_size, train))
    given = [] if self.context == "inline" else self._given(context)
    if cache_size:
      masks = [jnp.ones((len(inputs), 0), bool), *(s.mask for s in given)]
      self.put_variable(CACHE, "given_mask", jnp.concatenate(masks, axis=1))
    early = _early(text, prefix, parallel)
    if segments is not None and (given or prefix is not None):
      raise errors.UserError(
        "Several texts share a row: the decoder keeps them apart without a "
        "prefix and without inputs to look at, or with context='inline'. "
        "Leave the data's pack out."
      )
    if not given:
      x = self._mix(text, early, {}, cache_size, train, segments)
    elif self.context == "prefix":
      sequence = _join([*given, text])
      early = jnp.concatenate(
        [*(jnp.ones_like(s.mask) for s in given), early], axis=1
      )
      x = self._mix(sequence, early, {}, cache_size, train)[:, -num_tokens:]
    else:
      joined = _join(given)
      seen = dict(context=joined.x, context_mask=joined.mask[:, None, :])
      x = self._mix(text, early, seen, cache_size, train)
    return text.replace(x=x)

  def table(self) -> Float[Array, "v d"]:
    """The token embeddings, for an output that shares them."""
    return self.tokens.rows()

  def _embed(self, inputs, mask, positions, parallel, present, placed=None):
    num_tokens = inputs.shape[1]
    if num_tokens > self.max_tokens:
      raise errors.UserError(
        f"The text to decode has {num_tokens} tokens, the decoder takes "
        f"max_tokens={self.max_tokens}."
      )
    x = self.tokens(inputs)
    if parallel is not None:
      token = jnp.expand_dims(mask_token(self, x.shape[-1]), (0, 1))
      x = jnp.where(parallel[:, None, None], token.astype(x.dtype), x)
    mask = jnp.ones(inputs.shape, bool) if mask is None else mask
    if placed is not None:
      x, mask = inline.put(x, mask, *placed)
    table = position_table(
      self.positions,
      (self.max_tokens,),
      self.size.embed_dim,
      nn.initializers.normal(0.02),
    )
    if table is not None:
      # A slice where it will do: the gradient of a lookup is a scatter.
      rows = (
        table[None, :num_tokens]
        if positions is None
        else jnp.take(table, positions, axis=0)
      )
      x = x + rows
    if positions is None:
      positions = jnp.arange(num_tokens)[None]
    if parallel is not None:
      mask = mask | parallel[:, None]
    if present is not None:
      mask = mask & present[:, None]
    return Sequence(
      x.astype(self.precision.activations),
      mask,
      coordinates=positions[:, :, None].astype(jnp.float32),
      num_content=num_tokens,
    )

  def _pooled(self, context):
    """Pictures with fewer tokens, other inputs as they are."""
    return {
      name: inline.pool(given, self.image_grid, self.image_pool)
      if name in IMAGES
      else given
      for name, given in context.items()
    }

  def _given(self, context):
    """The encoded inputs in the order of their names, at this width."""
    if not context:
      return []
    return list(
      fusion_inputs(self, context, self.size.embed_dim, self.precision).values()
    )

  def _mix(self, sequence, early, seen, cache_size, train, segments=None):
    b, n = sequence.mask.shape
    causal = jnp.tril(jnp.ones((n, n), bool))[None]
    mask = sequence.mask[:, None, :] & (causal | early[:, None, :])  # b n n
    if segments is not None:
      mask = mask & (segments[:, :, None] == segments[:, None, :])
    if cache_size:
      slots = jnp.broadcast_to(jnp.arange(n)[None], (b, n))
      room = cache_size - sequence.coordinates.shape[1]  # For more text.
      mask = jnp.pad(mask, ((0, 0), (0, 0), (0, room)))
      seen = {**seen, "slots": slots}
    return self._stack()(
      sequence.x,
      mask=mask,
      train=train,
      angles=self._angles(sequence),
      **seen,
    )

  def _go_on(self, text, positions, cache_size, train):
    """Mixes the next tokens with those in the cache; they see no later one."""
    given_mask = self.get_variable(CACHE, "given_mask")  # b m
    first, seen = given_mask, {}
    if self.context != "prefix":
      first = given_mask[:, :0]
      if given_mask.shape[1]:
        # Of the context, all that is needed is in the cache.
        shape = (*given_mask.shape, self.size.embed_dim)
        nothing = jnp.zeros(shape, text.x.dtype)
        seen = dict(context=nothing, context_mask=given_mask[:, None, :])
    mask = jnp.arange(cache_size)[None, None] <= positions[:, :, None]  # b n t
    first_mask = jnp.broadcast_to(
      first[:, None, :], (*positions.shape, first.shape[1])
    )
    return self._stack()(
      text.x,
      mask=jnp.concatenate([first_mask, mask], axis=2),
      train=train,
      angles=self._angles(text),
      slots=positions + first.shape[1],
      **seen,
    )

  def _stack(self):
    return Stack(
      self.size.num_layers,
      self.size.num_heads,
      self.size.mlp_dim,
      self.options,
      precision=self.precision,
      name="stack",
    )

  def _angles(self, sequence):
    if self.positions != "rotary":
      return None
    # What stands before the text has no place in it: it is not turned.
    before = sequence.x.shape[1] - sequence.coordinates.shape[1]
    places = jnp.pad(sequence.coordinates, ((0, 0), (before, 0), (0, 0)))
    return rotary_angles(places, self.size.embed_dim // self.size.num_heads)


def _early(text, prefix, parallel) -> Bool[Array, "b t"]:
  """True for tokens that those before them see too."""
  early = jnp.zeros(text.mask.shape, bool)
  if prefix is not None:
    index = jnp.arange(text.mask.shape[1])[None]  # 1 t
    early = index < prefix[:, None]
  if parallel is not None:
    early = early | parallel[:, None]
  return early


def _join(sequences):
  """Sequences one after the other; coordinates are those of the last."""
  return sequences[-1].replace(
    x=jnp.concatenate([s.x for s in sequences], axis=1),
    mask=jnp.concatenate([s.mask for s in sequences], axis=1),
  )


def text(
  *,
  vocab_size: int,
  max_tokens: int,
  size: str | Mapping[str, Any] = "B",
  positions: str = "learned",
  context: str = "cross_attention",
  image_grid: tuple[int, int] | None = None,
  image_pool: int | None = None,
  stack: StackOptions | Mapping[str, Any] = VIT,
  precision: precision_lib.Precision = precision_lib.FLOAT32,
) -> TextDecoder:
  """A text decoder.

  Args:
    vocab_size: rows of the token table.
    max_tokens: longest text, tokens.
    size: see `variants.resolve`.
    positions: "learned", "sincos", "rotary" or "none".
    context: how it reads encoded inputs: by "cross_attention" in every layer,
      as a "prefix" of the text in one stack, or "inline", within the text.
    image_grid: rows and columns of a picture's tokens; only to pool them.
    image_pool: side of the square of a picture's tokens whose mean takes one
      place of the text; for context="inline". The data say it; None = 1.
    stack: see `StackOptions`.
    precision: see `core.precision`.

  Raises:
    UserError: an unknown kind of context.
  """
  if context not in CONTEXTS:
    raise errors.unknown("way to read a context", context, CONTEXTS)
  return TextDecoder(
    vocab_size,
    max_tokens,
    variants.resolve(size),
    positions,
    context,
    image_grid and tuple(image_grid),
    image_pool or 1,
    stack_options(stack),
    precision,
  )
