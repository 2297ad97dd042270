"""Files like photographs, made of the starter pictures: nothing to download."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmjax.data import open_source, prepare, prepare_example
from mmjax.data.transforms import image

SIZE = (500, 375)  # Pixels, width by height: the common one of ImageNet.
QUALITY = 90
NOISE = 14  # Gray levels: makes files as large as those of a camera.
STORED = 291  # Pixels, shorter side of copies: 1.3 x 224.
CAPTIONS = "captions.json"


def write(folder: Path, count: int) -> None:
  """Writes `count` pictures with captions in three forms.

  Four starter pictures, enlarged, fill a picture; noise makes its file about
  100 kB. The forms: `<folder>/jpeg` with one file each, for peers;
  `<folder>/prepared`, shards; `<folder>/copies`, shards with a shorter side of
  291 pixels.
  """
  rng = np.random.default_rng(0)
  source = open_source("starter_emoji", split="train")
  (folder / "jpeg").mkdir(parents=True, exist_ok=True)
  examples = []
  for i in range(count):
    four = [source[int(j)] for j in rng.integers(len(source), size=4)]
    encoded = _photograph([image.decode(e["image"]) for e in four], rng)
    text = "a picture of " + ", ".join(e["label_en"] for e in four)
    examples.append({"image": encoded, "text": text})
    (folder / "jpeg" / f"{i:06}.jpg").write_bytes(encoded)
  captions = [example["text"] for example in examples]
  (folder / CAPTIONS).write_text(json.dumps(captions), "utf-8")
  for name, size in (("prepared", 0), ("copies", STORED)):
    options = prepare_example.PrepareOptions(image_size=size)
    prepare.prepare(
      examples, folder / name, name="bench", split="train", options=options
    )


def _photograph(pictures, rng: np.random.Generator) -> bytes:
  whole = Image.new("RGB", SIZE)
  width, height = SIZE[0] // 2, -(-SIZE[1] // 2)
  for i, pixels in enumerate(pictures):
    tile = Image.fromarray(pixels).resize(
      (width, height), Image.Resampling.BICUBIC
    )
    whole.paste(tile, (i % 2 * width, i // 2 * height))
  noisy = np.asarray(whole) + rng.normal(0, NOISE, (*SIZE[::-1], 1))
  file = io.BytesIO()
  pixels = noisy.clip(0, 255).astype(np.uint8)
  Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
  return file.getvalue()
