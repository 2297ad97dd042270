"""What a model puts in place of hidden patches and words."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, UInt8

from mmjax.core.interfaces import Artifact, Predict
from mmjax.evaluators import samples

GRAY = 128  # What a hidden patch is painted with.


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedPrediction:
  """Fills in what is hidden of picture and text, each given the other.

  `codes/accuracy` and `tokens/accuracy` are shares of hidden patches and
  tokens that are predicted exactly; `.../majority` is what always saying the
  most frequent answer would reach.
  """

  batches: Callable[[], Iterator[dict[str, np.ndarray]]]
  tokenizer: Any
  image_head: str = "vtp"
  text_head: str = "mlm"
  num_shown: int = 8  # Examples in the report.

  def reads(self):
    hidden = ("image_hidden", "text_hidden", "text_hidden_mask")
    return {"batches": ("image", "text", *hidden)}

  def run(self, predict: Predict, params: Any) -> Iterator[tuple[str, float]]:
    columns: dict[str, list[np.ndarray]] = {}
    for batch in self.batches():
      out = predict(params, self._fill, batch)
      real = batch["example_mask"]
      words = batch["text_hidden_mask"] & real[:, None]
      for name, rows in (("codes", real), ("tokens", words)):
        for kind in ("true", "predicted"):
          value = out[f"{name}/{kind}"][rows].reshape(-1)
          columns.setdefault(f"{name}/{kind}", []).append(value)
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    for name in ("codes", "tokens"):
      true, predicted = joined[f"{name}/true"], joined[f"{name}/predicted"]
      yield f"{name}/accuracy", float(np.mean(true == predicted))
      yield f"{name}/majority", float(np.bincount(true).max() / len(true))

  def pictures(self, predict: Predict, params: Any) -> Iterator[Artifact]:
    batch, count = samples.spread(self.batches(), self.num_shown)
    out = predict(params, self._fill, batch)
    num_patches = int(out.pop("num_patches"))
    shown = {k: v[:count] for k, v in {**batch, **out}.items()}
    columns = {
      "original": shown["image"],
      "hidden": cover(shown["image"], shown["image_hidden"], num_patches),
      "predicted codes": _pixels(shown["picture/predicted"]),
      "true codes": _pixels(shown["picture/true"]),
    }
    yield Artifact(
      "patches",
      "pairs",
      "Hidden patches",
      {
        "columns": list(columns),
        "images": np.stack(list(columns.values()), axis=1),
        "captions": [self.tokenizer.decode(row) for row in shown["text"]],
      },
      "The gray patches were hidden. The model predicts their codes from the "
      "rest and the text; the visual tokenizer decodes them. The last column "
      "is the best that these codes can do.",
    )
    yield Artifact(
      "words",
      "masked_text",
      "Hidden words",
      {"rows": [self._words(shown, i) for i in range(count)]},
      "Marked tokens were hidden or replaced; the model predicts them from the "
      "rest and the picture.",
    )

  def _words(self, shown, row):
    predicted = {
      int(position): int(token)
      for position, token, used in zip(
        shown["text_hidden"][row],
        shown["tokens/predicted"][row],
        shown["text_hidden_mask"][row],
        strict=True,
      )
      if used
    }
    return [
      {
        "token": self.tokenizer.token(token),
        "hidden": position in predicted,
        "predicted": self.tokenizer.token(predicted[position])
        if position in predicted
        else "",
        "right": predicted.get(position) == token,
      }
      for position, token in enumerate(shown["text"][row].tolist())
      if self.tokenizer.content[token]
    ]

  def _fill(self, apply, batch):
    fused = apply("fuse", ("image", "text"), view="masked")
    patches, words = batch["image_hidden"], batch["text_hidden"]
    patch_logits = apply("head", self.image_head, fused["image"].take(patches))
    word_logits = apply("head", self.text_head, fused["text"].take(words))
    codes = apply("codes", "image")  # b n
    guess = jnp.argmax(patch_logits, axis=-1).astype(codes.dtype)  # b k
    rows = jnp.arange(codes.shape[0])[:, None]
    return {
      "codes/true": jnp.take_along_axis(codes, patches, axis=1),
      "codes/predicted": guess,
      "tokens/true": jnp.take_along_axis(batch["text"], words, axis=1),
      "tokens/predicted": jnp.argmax(word_logits, axis=-1),
      "picture/true": apply("decode_codes", codes),
      "picture/predicted": apply(
        "decode_codes", codes.at[rows, patches].set(guess)
      ),
      "num_patches": jnp.asarray(codes.shape[1]),
    }


def cover(
  images: UInt8[np.ndarray, "b h w c"],
  hidden: Int[np.ndarray, "b k"],
  num_patches: int,
) -> UInt8[np.ndarray, "b h w c"]:
  """Paints hidden patches of a square grid gray."""
  side = math.isqrt(num_patches)
  b, h, w, c = images.shape
  out = images.copy().reshape(b, side, h // side, side, w // side, c)
  for row, patches in zip(out, hidden, strict=True):
    row[patches // side, :, patches % side] = GRAY
  return out.reshape(images.shape)


def _pixels(picture):
  return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
