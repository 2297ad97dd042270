"""The one encoder: a stem that makes tokens, then a stack that mixes them."""

import dataclasses
import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import axes, errors
from mmjax.core import precision as precision_lib
from mmjax.core.sequence import Sequence, same
from mmjax.models import variants
from mmjax.models.layers.norm import norm
from mmjax.models.layers.options import StackOptions
from mmjax.models.layers.pooling import KINDS, WITH_CLS, Pool
from mmjax.models.layers.positions import rotary_angles
from mmjax.models.layers.relative import relative
from mmjax.models.layers.transformer import Stack


class Encoder(nn.Module):
  """Encodes one modality: field -> `Sequence`.

  Modalities differ in the stem only, a Linen module called as
  `stem(inputs, mask=, hidden=, train=) -> Sequence`, with `coordinates=` and
  `segments=` too where the batch has them.

  Raises:
    UserError: unknown kind of pooling, or `fuse_before_norm` without a norm.
  """

  stem: nn.Module
  size: variants.Size
  pool_kind: str = "mean"
  registers: int = 0  # Learned tokens that only attention uses.
  causal: bool = False  # A token sees itself and those before it.
  rotary: bool = False  # Attention turns by the stem's coordinates.
  options: StackOptions = StackOptions()
  precision: precision_lib.Precision = precision_lib.FLOAT32
  pool_tanh: bool = False  # See `Pool`.
  pool_norm: bool = False  # Likewise.
  grid: tuple[int, ...] = ()  # Of the tokens, for relative positions.
  input_norm: bool = False  # A norm before the stack too, of all tokens.
  pool_projection: int = 0  # See `Pool`.
  # Fusions take what there is before the norm after the stack, as in FLAVA.
  fuse_before_norm: bool = False

  def setup(self):
    if self.pool_kind not in KINDS:
      raise errors.unknown("pooling", self.pool_kind, KINDS)
    size, options = self.size, self.options
    if self.fuse_before_norm:
      if options.norm_position != "pre" or not options.final_norm:
        raise errors.UserError(
          "fuse_before_norm: the stack has no norm after its last block. Set "
          "stack.norm_position='pre' and final_norm=True."
        )
      self.last_norm = norm(
        options.norm, self.precision, "last_norm", options.norm_epsilon
      )
      options = dataclasses.replace(options, final_norm=False)
    self.stack = Stack(
      size.num_layers,
      size.num_heads,
      size.mlp_dim,
      options,
      precision=self.precision,
    )
    self.pooling = Pool(
      self.pool_kind,
      size.num_heads,
      size.mlp_dim,
      self.precision,
      self.pool_tanh,
      self.options.norm_epsilon if self.pool_norm else 0.0,
      self.pool_projection,
    )
    if self.input_norm:
      self.first_norm = norm(
        self.options.norm,
        self.precision,
        "first_norm",
        self.options.norm_epsilon,
      )
    if self.pool_kind in WITH_CLS:
      self.cls = self._token("cls", 1)
    if self.registers:
      self.register_tokens = self._token("registers", self.registers)

  def __call__(
    self,
    inputs: Array,
    *,
    mask: Bool[Array, "b n"] | None = None,
    hidden: Int[Array, "b k"] | None = None,
    coordinates: Int[Array, "b n c"] | None = None,
    segments: Int[Array, "b n"] | None = None,
    present: Bool[Array, " b"] | None = None,
    packed: Int[Array, "b n"] | None = None,
    train: bool,
  ) -> Sequence:
    """Encodes a field of the batch.

    Args:
      inputs: the field, as its stem documents.
      mask: True where `inputs` is real; None = everywhere.
      hidden: positions of the content tokens to hide from the encoder.
      coordinates: where each token of `inputs` is, for stems that take them.
      segments: of which segment each token is, likewise.
      present: False for examples that lack the field: nothing of what stands
        in their place is used, and their tokens don't count.
      packed: several examples share a row: which one each token is of.
        Attention stays within it; `coordinates` start anew with each.
      train: dropout and stochastic depth are on.

    Raises:
      UserError: rows are packed, and the encoder adds a token for all of one,
        or leaves out hidden tokens.
    """
    if packed is not None:
      self._check_packed()
    if present is not None:
      # Zeros first: a NaN would pass through the gradient of a mask.
      here = jnp.expand_dims(present, tuple(range(1, inputs.ndim)))
      inputs = jnp.where(here, inputs, jnp.zeros((), inputs.dtype))
    given = {"coordinates": coordinates, "segments": segments}
    given = {name: value for name, value in given.items() if value is not None}
    sequence = self.stem(inputs, mask=mask, hidden=hidden, train=train, **given)
    if present is not None:
      mask = sequence.mask & present[:, None]
      sequence = sequence.replace(mask=mask)
    if packed is not None:
      if sequence.positions is not None:
        raise errors.UserError(
          "Rows of several examples keep their hidden tokens: set the "
          "encoder's hidden='replace'."
        )
      sequence = sequence.replace(packed=packed)
    if self.registers:
      sequence = _prepend(self.register_tokens, sequence)
    if self.pool_kind in WITH_CLS:
      sequence = _prepend(self.cls, sequence)
    x = self._mix(sequence, train)
    if self.fuse_before_norm:
      return sequence.replace(x=self.last_norm(x), before_norm=x)
    return sequence.replace(x=x)

  def table(self) -> Float[Array, "v d"]:
    """The stem's token embeddings, for an output that shares them."""
    return self.stem.table()

  def cut(self, inputs: Array, mask: Bool[Array, "b n"] | None = None) -> Array:
    """The numbers that each content token is made of, `b n q`.

    Raises:
      UserError: the stem cuts nothing.
    """
    if not self.patch_dim:
      raise errors.UserError(
        f"A {type(self.stem).__name__} does not cut its inputs into patches."
      )
    return self.stem.cut(inputs, mask)

  @property
  def patch_dim(self) -> int:
    """How many numbers those are; 0 if the stem cuts nothing."""
    return getattr(self.stem, "patch_dim", 0)

  def pool(self, sequence: Sequence) -> Float[Array, "b d"]:
    """One vector per example."""
    return self.pooling(sequence)

  def _mix(self, sequence, train):
    mask = sequence.mask[:, None, :]  # b 1 n
    if self.causal:
      n = sequence.x.shape[1]
      mask = mask & jnp.tril(jnp.ones((n, n), bool))[None]  # b n n
    if sequence.packed is not None:
      mask = mask & same(sequence.packed)
    x = self.first_norm(sequence.x) if self.input_norm else sequence.x
    return self.stack(
      x,
      mask=mask,
      train=train,
      angles=self._angles(sequence),
      relative=self._relative(sequence),
    )

  def _check_packed(self):
    if self.pool_kind in WITH_CLS or self.registers:
      raise errors.UserError(
        "A row holds several examples, but the encoder adds one token for all "
        "of it: set pool to 'mean' or 'map' and registers=0."
      )

  def _relative(self, sequence):
    if self.options.relative_positions == "none" or not self.grid:
      return None  # The stack says so where it needs them.
    if sequence.num_content != math.prod(self.grid):
      raise errors.UserError(
        f"{sequence.num_content} patches; relative positions are of "
        f"{'x'.join(map(str, self.grid))}. Set image_size of model and data "
        "alike, and leave data.image.patches out."
      )
    return relative(sequence.coordinates, sequence.num_prefix, self.grid)

  def _angles(self, sequence):
    if not self.rotary:
      return None
    if sequence.coordinates is None:
      raise errors.UserError(
        f"Rotary positions: {type(self.stem).__name__} gives no coordinates."
      )
    # Special tokens are nowhere: they are not turned.
    prefix = ((0, 0), (sequence.num_prefix, 0), (0, 0))
    head_dim = self.size.embed_dim // self.size.num_heads
    return rotary_angles(jnp.pad(sequence.coordinates, prefix), head_dim)

  def _token(self, name, count):
    return self.param(
      name,
      nn.with_logical_partitioning(
        nn.initializers.normal(0.02), (None, None, axes.EMBED)
      ),
      (1, count, self.size.embed_dim),
      jnp.float32,
    )


def _prepend(tokens, sequence):
  b, _, d = sequence.x.shape
  count = tokens.shape[1]
  tokens = jnp.broadcast_to(tokens.astype(sequence.x.dtype), (b, count, d))
  # Where all content is absent, what is put before it doesn't count either.
  counts = jnp.any(sequence.mask, axis=1, keepdims=True)
  counts = jnp.broadcast_to(counts, (b, count))
  return sequence.replace(
    x=jnp.concatenate([tokens, sequence.x], axis=1),
    mask=jnp.concatenate([counts, sequence.mask], axis=1),
    num_prefix=sequence.num_prefix + count,
  )
