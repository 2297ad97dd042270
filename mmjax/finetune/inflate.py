r"""Starts an encoder of clips from one of pictures.

Source: Arnab et al. 2021 (arXiv:2103.15691), 3.4. All else of the two
encoders is alike: a rename rule moves it, e.g. `("encoders_image/(.*)",
r"encoders_video/\1")`; a factorised encoder's `time_stack` is new.
"""

import numpy as np
from jaxtyping import Float

# What becomes of the linear map of a patch: each frame gets its share, or the
# frame in the middle gets all of it.
KINDS = ("average", "central_frame")
KERNEL, TABLE = "patches/kernel", "positions/table"


def copies(name: str, old: tuple[int, ...], new: tuple[int, ...]) -> int:
  """How often a parameter of a picture's encoder goes into one of a clip's.

  That is, along time; 0 if it does not, or is no longer than it was.

  Args:
    name: in the model; ends in `patches/kernel` or `positions/table`.
    old: shape in the checkpoint.
    new: shape in the model.
  """
  known = name.endswith((f"/{KERNEL}", f"/{TABLE}"))
  if not known or len(old) != 2 or old[1:] != new[1:]:
    return 0
  count, rest = divmod(new[0], old[0])
  return count if count > 1 and not rest else 0


def inflate(
  name: str, array: Float[np.ndarray, "n d"], count: int, kind: str
) -> Float[np.ndarray, "m d"]:
  """Repeats a parameter `count` times along time.

  Kernels, by `kind`: "average" divides each copy by their number (eq. 8), so
  that a clip of one picture gives the tokens of the picture; "central_frame"
  leaves zeros but in the middle (eq. 9), of an even number the later one of
  the two. Positions are repeated: all times start alike.
  """
  if name.endswith(TABLE):
    return np.tile(array, (count, 1))  # (times places) d
  if kind == "average":
    return np.tile(array / count, (count, 1))  # (t p p c) d
  out = np.zeros((count, *array.shape), array.dtype)
  out[count // 2] = array
  return out.reshape(-1, array.shape[1])  # (t p p c) d
