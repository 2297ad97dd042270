"""Encoded inputs in the places that a text leaves for them.

Source: LLaVA (Liu et al. 2023, arXiv:2304.08485), 4.1, eq. 1.
"""

from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import errors
from mmjax.core.sequence import Sequence


def put(
  x: Float[Array, "b t d"],
  mask: Bool[Array, "b t"],
  given: Sequence,
  places: Int[Array, "b t"],
) -> tuple[Float[Array, "b t d"], Bool[Array, "b t"]]:
  """Puts tokens of `given` where a text has places, and says what is real.

  Args:
    x: embedded tokens of the text.
    mask: which of them are real.
    given: encoded inputs.
    places: which token of `given` stands here; -1 = the text's own.
  """
  here = places >= 0  # b t
  index = jnp.maximum(places, 0)
  real = jnp.take_along_axis(given.mask, index, axis=1)
  tokens = jnp.take_along_axis(given.x, index[:, :, None], axis=1)  # b t d
  tokens = jnp.where(real[:, :, None], tokens, 0.0).astype(x.dtype)
  return jnp.where(here[:, :, None], tokens, x), mask & (real | ~here)


def check(context: str, names: Iterable[str], has_places: bool) -> None:
  """Checks that a decoder puts its context where the batch says.

  Args:
    context: how the decoder reads encoded inputs.
    names: of these inputs, at least one.
    has_places: whether the batch has places for them.

  Raises:
    UserError: only one of both does.
  """
  if context == "inline" and not has_places:
    raise errors.UserError(
      "context='inline' needs to know where in the text each token of "
      f"{sorted(names)} stands: config.data.conversation says it, for the "
      "objective 'conversation'."
    )
  if context != "inline" and has_places:
    raise errors.UserError(
      f"The text has places for tokens of {sorted(names)}, but this decoder "
      f"reads them by context={context!r}: set config.model.decoders.text."
      "context='inline'."
    )
