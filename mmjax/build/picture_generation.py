"""Pictures from texts: of a model that was taught to predict their codes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import UInt8
from PIL import Image

from mmjax.build import experiment as experiment_lib
from mmjax.core import errors
from mmjax.data.tokenizer import TextTokenizer
from mmjax.generate import masked_decoding
from mmjax.train import predict

EXAMPLE = "configs/pretrain/text_to_image.py"
BORDER = 2  # Pixels around each picture of a grid.


class PictureGenerator:
  """Draws pictures by masked parallel decoding of their codes.

  What is known of a picture goes back into the model as pixels: the codes so
  far, decoded by its tokenizer, the other patches hidden. So any model with
  vision token prediction given text will do, if its encoder replaces hidden
  patches; one that was trained to start from none does well.

  Raises:
    UserError: the model cannot, says what it lacks; or a setting is wrong.
  """

  def __init__(
    self,
    made: experiment_lib.Experiment,
    *,
    num_steps: int = 12,
    temperature: float = 1.0,
    choice_temperature: float = 4.5,
  ):
    self._objective, task = _find_objective(made)
    self._grid = _find_grid(made)
    source = made.parts.pipelines[task]
    assert source.tokenizer is not None  # It has texts.
    self._tokenizer: TextTokenizer = source.tokenizer
    self._max_tokens = source.specs["text"].shape[0] or 0
    self._settings: dict[str, Any] = dict(
      num_steps=num_steps,
      temperature=temperature,
      choice_temperature=choice_temperature,
    )
    masked_decoding.unknown_counts(math.prod(self._grid), num_steps)
    self._rows = made.mesh.size  # A batch has a multiple of it.
    self._predict = predict.Predictor(
      made.parts.model,
      made.mesh,
      made.rules,
      frozenset({"text", "text_mask", "key"}),
    )

  def __call__(
    self, variables: Mapping[str, Any], prompts: Sequence[str], *, seed: int
  ) -> UInt8[np.ndarray, "b h w c"]:
    """A picture for each prompt; equal prompts get different ones.

    Args:
      variables: all of the model's.
      prompts: texts, as in the training data.
      seed: the same seed, prompts and settings give the same pictures.

    Raises:
      UserError: no prompt, or one that is empty or too long.
    """
    if not prompts:
      raise errors.UserError("There is no prompt: nothing to draw.")
    tokens = np.stack([self._tokens(prompt) for prompt in prompts])  # b t
    numbers = jnp.arange(len(prompts))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
      jax.random.key(seed), numbers
    )
    batch = {
      "text": tokens,
      "text_mask": tokens != self._tokenizer.pad_id,
      "key": np.asarray(jax.random.key_data(keys)),
    }
    fill = -len(prompts) % self._rows
    batch = {
      name: np.concatenate([rows, np.repeat(rows[-1:], fill, axis=0)])
      for name, rows in batch.items()
    }
    pictures = self._predict(variables, self._draw, batch)
    return pictures[: len(prompts)]

  def _tokens(self, prompt):
    if not prompt.strip():
      raise errors.UserError("The prompt is empty: say what to draw.")
    count = self._tokenizer.num_tokens(prompt)
    if count > self._max_tokens:
      raise errors.UserError(
        f"The prompt has {count} tokens, the model reads {self._max_tokens}, "
        "begin and end included. Say it in fewer words."
      )
    return self._tokenizer.encode(prompt, self._max_tokens)

  def _draw(self, apply, batch):
    num_tokens = math.prod(self._grid)
    positions = jnp.arange(num_tokens)[None]  # 1 n

    def logits_of(codes, unknown):
      # As many positions in each step: a known one gives way to one that is
      # not, which is hidden anyway.
      first = jnp.argmax(unknown, axis=1, keepdims=True)  # b 1
      hidden = jnp.where(unknown, positions, first).astype(jnp.int32)
      return self._objective.code_logits(apply, codes, hidden)

    decoded = masked_decoding.decode(
      logits_of,
      jax.random.wrap_key_data(batch["key"]),
      num_tokens,
      **self._settings,
    )
    pixels = apply("decode_codes", decoded.codes, "image")
    return jnp.round(pixels * 255.0).astype(jnp.uint8)


def _find_objective(made: experiment_lib.Experiment) -> tuple[Any, str]:
  """What predicts codes of pictures given a text, and its task."""
  for item in made.parts.objectives.values():
    objective: Any = item.objective
    if (
      hasattr(objective, "code_logits")
      and objective.image == "image"
      and tuple(objective.given) == ("text",)
    ):
      return objective, item.task
  names = sorted(made.parts.objectives)
  raise errors.UserError(
    "This model does not draw pictures: none of its objectives predicts codes "
    f"of pictures given a text. It has {names}; {EXAMPLE} has "
    "'vision_token_prediction'."
  )


def _find_grid(made: experiment_lib.Experiment) -> tuple[int, ...]:
  """Rows and columns of a picture's codes."""
  model = made.parts.model
  tokenizer: Any = (model.tokenizers or {}).get("image", model.visual_tokenizer)
  to_pixels = (
    getattr(tokenizer, "modality", "") == "image"
    and hasattr(tokenizer, "decode_codes")
    and not getattr(tokenizer, "feature_dim", 0)
  )
  if not to_pixels:
    raise errors.UserError(
      "This model does not draw pictures: it predicts codes, but has no "
      "tokenizer that decodes them to pixels, such as 'vq', in "
      "config.model.visual_tokenizer."
    )
  stem = getattr(model.encoders["image"], "stem", None)
  if getattr(stem, "hidden", "replace") == "drop":
    raise errors.UserError(
      "This model does not draw pictures: its image encoder drops hidden "
      "patches, and of an empty picture nothing would be left. Train one with "
      f"config.model.encoders.image.hidden='replace', as {EXAMPLE} has it."
    )
  return tuple(tokenizer.grid)


def write_grid(
  pictures: UInt8[np.ndarray, "b h w c"], path: Path, columns: int = 4
) -> None:
  """Writes pictures into one file, row by row on white.

  Raises:
    UserError: the file cannot be written.
  """
  b, h, w, c = pictures.shape
  columns = min(columns, b)
  rows = -(-b // columns)
  tile = (h + 2 * BORDER, w + 2 * BORDER)
  whole = np.full((rows * columns, *tile, c), 255, np.uint8)
  whole[:b, BORDER : BORDER + h, BORDER : BORDER + w] = pictures
  whole = whole.reshape(rows, columns, *tile, c).transpose(0, 2, 1, 3, 4)
  sheet = whole.reshape(rows * tile[0], columns * tile[1], c)
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(sheet).save(path)
  except (OSError, ValueError) as e:  # ValueError: an ending it doesn't know.
    raise errors.UserError(
      f"Cannot write pictures to {str(path)!r}: {e}"
    ) from e
