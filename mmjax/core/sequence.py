"""`Sequence`: what every encoder returns and every fusion takes and returns."""

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

# What a fusion calls its own class token, beside the modalities.
CLS = "cls"


@struct.dataclass
class Sequence:
  """Encoded tokens of one modality.

  `x` starts with `num_prefix` special tokens (CLS, registers), then the
  content tokens. With `positions` set, hidden content tokens were left out of
  the encoder and `positions` says which of the `num_content` grid positions
  each remaining content token has; without, content token i has position i.
  """

  x: Float[Array, "b n d"]
  mask: Bool[Array, "b n"]  # True = counts, may be attended to.
  positions: Int[Array, "b m"] | None = None
  # Where content tokens are, for rotary positions: (row, column), (time,), ...
  # The first axis may be 1: the same in all examples.
  coordinates: Float[Array, "#b m c"] | None = None
  # Where several examples share a row: which one each token is of; 0 = padding.
  packed: Int[Array, "b n"] | None = None
  # `x` before its encoder's last norm, for fusions, where the encoder says so.
  before_norm: Float[Array, "b n d"] | None = None
  num_prefix: int = struct.field(pytree_node=False, default=0)
  num_content: int = struct.field(pytree_node=False, default=0)

  def take(self, indices: Int[Array, "b k"]) -> Float[Array, "b k d"]:
    """Gathers content tokens by position, skipping the prefix.

    Raises:
      ValueError: hidden tokens were dropped, so positions are not indices.
    """
    if self.positions is not None:
      raise ValueError(
        "Sequence.take on a sequence with dropped tokens: pass it through a "
        "fusion or a decoder first, or set the encoder's hidden='replace'."
      )
    indices = indices + self.num_prefix
    return jnp.take_along_axis(self.x, indices[:, :, None], axis=1)  # b k d

  @property
  def content(self) -> Float[Array, "b m d"]:
    """The tokens after the prefix."""
    return self.x[:, self.num_prefix :]

  @property
  def content_mask(self) -> Bool[Array, "b m"]:
    return self.mask[:, self.num_prefix :]


def complement(hidden: Int[Array, "b k"], length: int) -> jax.Array:
  """Returns the positions in [0, length) that `hidden` leaves, ascending.

  `hidden` has k distinct positions per row, so the result is `b (length-k)`.
  """
  # A stable sort puts the visible positions first, in their own order.
  order = jnp.argsort(membership(hidden, length), axis=1, stable=True)
  return order[:, : length - hidden.shape[1]]


def membership(hidden: Int[Array, "b k"], length: int) -> Bool[Array, "b n"]:
  """Says of each position in [0, length) whether `hidden` holds it."""
  grid = jnp.arange(length)[None, None, :]  # 1 1 n
  return jnp.any(hidden[:, :, None] == grid, axis=1)


def same(packed: Int[Array, "b n"]) -> Bool[Array, "b n n"]:
  """Which tokens of a row are of the same example."""
  return packed[:, :, None] == packed[:, None, :]
