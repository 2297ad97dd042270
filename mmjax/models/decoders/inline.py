"""Encoded inputs in the places that a text leaves for them.

Source: LLaVA (Liu et al. 2023, arXiv:2304.08485), 4.1, eq. 1.
"""

from collections.abc import Iterable

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from mmjax.core import errors
from mmjax.core.sequence import Sequence


def pool(given: Sequence, grid: tuple[int, int] | None, side: int) -> Sequence:
  """The mean of each square of `side` x `side` tokens, picture by picture.

  Source: Gemma 3 (Gemma Team 2025, arXiv:2503.19786), 2.1.

  Args:
    given: tokens of m pictures, `b (m rows columns) d`. A picture is real or
      not as a whole.
    grid: rows and columns of tokens of a picture.
    side: tokens; 1 = none are pooled.

  Raises:
    UserError: the squares do not fill the grid, or nothing says what it is.
  """
  if side == 1:
    return given
  if grid is None or grid[0] % side or grid[1] % side:
    raise errors.UserError(
      f"Squares of {side}x{side} tokens (image_pool) do not fill the grid of "
      f"a picture's tokens, {grid}."
    )
  rows, columns = grid[0] // side, grid[1] // side
  b, _, d = given.x.shape
  x = given.x.reshape(b, -1, rows, side, columns, side, d).mean(axis=(3, 5))
  mask = given.mask.reshape(b, -1, rows, side, columns, side).all(axis=(3, 5))
  x, mask = x.reshape(b, -1, d), mask.reshape(b, -1)
  return Sequence(x, mask, num_content=x.shape[1])


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
