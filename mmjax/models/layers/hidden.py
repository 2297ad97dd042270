"""What becomes of tokens that a batch hides: replaced, or left out."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from mmjax.core import axes, errors
from mmjax.core.sequence import membership

HIDDEN = ("replace", "drop")


def check(kind: str) -> None:
  """Checks a way to hide tokens.

  Raises:
    UserError: `kind` is not of `HIDDEN`.
  """
  if kind not in HIDDEN:
    raise errors.unknown("way to hide tokens", kind, HIDDEN)


def check_some_stay(num_hidden: int, num_tokens: int) -> None:
  """Checks that dropping leaves a token.

  Raises:
    UserError: it leaves none.
  """
  if num_hidden >= num_tokens:
    raise errors.UserError(
      f"All {num_tokens} tokens are hidden, and the encoder drops them: "
      "nothing would be left. Set its hidden='replace', or hide fewer."
    )


def mask_token(module: nn.Module, embed_dim: int) -> Float[Array, " d"]:
  """The parameter `mask_token` of `module`; it stands for hidden tokens."""
  return module.param(
    "mask_token",
    nn.with_logical_partitioning(nn.initializers.normal(0.02), (axes.EMBED,)),
    (embed_dim,),
    jnp.float32,
  )


def replace(
  module: nn.Module,
  x: Float[Array, "b n d"],
  hidden: Int[Array, "b k"] | None,
) -> Float[Array, "b n d"]:
  """Puts the `mask_token` of `module` at the positions in `hidden`.

  The parameter is made whether or not anything is hidden: one parameter tree.
  """
  token = mask_token(module, x.shape[-1])
  if hidden is None:
    return x
  is_hidden = membership(hidden, x.shape[1])[:, :, None]  # b n 1
  return jnp.where(is_hidden, token.astype(x.dtype), x)
