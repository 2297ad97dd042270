"""Pictures of words: a sheet to look at, and what another model sees in them.

python experiments/text_to_image.py runs/paint runs/quickstart/pretrain OUT.png

For concepts that the toy was trained on, and for held-out ones, it draws a
picture of each label. The other model, trained on contrast, then says which of
the labels it shows; the same for the real pictures, and for these through the
tokenizer, which is the best that codes can do.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mmjax.build import checkpoints, picture_generation, pipelines
from mmjax.cli import arguments, backend
from mmjax.train import predict

SEEN = (
  "red apple",
  "snowman",
  "pizza",
  "sunflower",
  "Christmas tree",
  "tropical fish",
)
NEW = ("green heart with arrow", "blue apple", "yellow book", "red moon face")
EACH = 6  # Pictures of a prompt.
CONCEPTS = 160  # Of each kind that are judged.
BATCH = 32
SPLITS = ("train", "unseen_concept_train_artists")


class Judge:
  """A model with a shared space of pictures and texts."""

  def __init__(self, workdir: Path):
    config = arguments.load_saved(workdir, [])
    made, _, state = checkpoints.restore(config, workdir, "latest")
    self._variables = state.ema_variables
    self._tokenizer = made.parts.pipelines["main"].tokenizer
    self._length = made.parts.pipelines["main"].specs["text"].shape[0]
    self._predict = predict.Predictor(
      made.parts.model,
      made.mesh,
      made.rules,
      frozenset({"image", "text", "text_mask"}),
    )

  def right(self, pictures: np.ndarray, labels: list[str], best: int) -> float:
    """Share of pictures whose label is among the best of all labels."""
    tokens = np.stack(
      [self._tokenizer.encode(label, self._length) for label in labels]
    )
    pairs: list[tuple[np.ndarray, np.ndarray]] = [
      self._predict(
        self._variables,
        _project,
        {
          "image": pictures[rows],
          "text": tokens[rows],
          "text_mask": tokens[rows] != self._tokenizer.pad_id,
        },
      )
      for rows in _chunks(len(labels))
    ]
    image, text = (np.concatenate(side) for side in zip(*pairs, strict=True))
    scores = image @ text.T
    better = np.sum(scores > np.diag(scores)[:, None], axis=1)
    return float(np.mean(better < best))


def _project(apply: Any, batch: Any) -> tuple[Any, Any]:
  del batch
  return apply("project", "image"), apply("project", "text")


def _reconstruct(apply: Any, batch: Any) -> Any:
  del batch
  pixels = apply("decode_codes", apply("codes", "image"))
  return jnp.round(255.0 * pixels).astype(jnp.uint8)


def _chunks(count: int) -> Iterator[np.ndarray]:
  for start in range(0, count, BATCH):
    yield np.arange(start, min(start + BATCH, count))


def examples(config: Any, split: str) -> tuple[np.ndarray, list[str]]:
  """Pictures and labels of some concepts of a split, one of each."""
  source = pipelines.make_pipeline(config, {"split": split, "image": WHOLE})
  found: dict[str, np.ndarray] = {}
  for index in range(len(source)):
    example = source.example(index, 0, 0, train=False)
    found.setdefault(example["label_en"], example["image"])
  labels = list(found)
  spread = np.linspace(0, len(labels) - 1, min(CONCEPTS, len(labels)))
  labels = [labels[i] for i in spread.astype(int)]
  return np.stack([found[label] for label in labels]), labels


WHOLE = dict(crop_scale=(1.0, 1.0))


def sheet(draw: Callable[[list[str]], np.ndarray], path: Path) -> None:
  """A row of pictures for each prompt, its words beside them."""
  prompts = [*SEEN, *NEW]
  words, side = 150, 64 + 2 * picture_generation.BORDER
  whole = Image.new("RGB", (words + EACH * side, len(prompts) * side), "white")
  pen = ImageDraw.Draw(whole)
  font = ImageFont.load_default(size=13)
  pictures = draw([p for p in prompts for _ in range(EACH)])
  for row, prompt in enumerate(prompts):
    color = "black" if prompt in SEEN else "firebrick"
    pen.text((4, row * side + 26), prompt, fill=color, font=font)
    for column in range(EACH):
      place = (words + column * side + 2, row * side + 2)
      tile = pictures[row * EACH + column]
      whole.paste(Image.fromarray(tile), place)
  whole.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def main(workdir: str, judge: str, out: str) -> None:
  """Writes the sheet and prints a table."""
  backend.set_up()
  arguments.ready_for_grain()
  config = arguments.load_saved(Path(workdir), [])
  made, step, state = checkpoints.restore(config, Path(workdir), "latest")
  variables = state.ema_variables
  generator = picture_generation.PictureGenerator(made)

  def draw(prompts: list[str]) -> np.ndarray:
    return np.concatenate(
      [
        generator(variables, [prompts[i] for i in rows], seed=int(rows[0]))
        for rows in _chunks(len(prompts))
      ]
    )

  sheet(draw, Path(out))
  run = predict.Predictor(
    made.parts.model, made.mesh, made.rules, frozenset({"image"})
  )
  looks = Judge(Path(judge))
  print(f"step {step}; share of pictures whose label is the first, among 10")
  for split in SPLITS:
    real, labels = examples(config, split)
    rebuilt = [
      run(variables, _reconstruct, {"image": real[rows]})
      for rows in _chunks(len(real))
    ]
    kinds = {
      "real": real,
      "through the tokenizer": np.concatenate(rebuilt),
      "drawn": draw(labels),
      "drawn of other labels": draw(labels[1:] + labels[:1]),
    }
    for kind, pictures in kinds.items():
      shares = (looks.right(pictures, labels, best) for best in (1, 10))
      numbers = " ".join(f"{share:.3f}" for share in shares)
      print(f"{split:30} {len(labels)} {kind:22} {numbers}")


if __name__ == "__main__":
  if len(sys.argv) != 4:
    sys.exit(__doc__)
  main(*sys.argv[1:])
