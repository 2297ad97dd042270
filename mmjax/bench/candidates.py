"""From JPEG files to batches of crops and tokens: ours, and how others do it.

Each makes the same: a random part of 8 to 100 % of the area, resized to 224 x
224, and the caption as 64 token ids, 64 examples a batch, with two threads or
processes.
"""

import importlib
import io
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mmjax.bench import pictures
from mmjax.bench.candidate import NotInstalled
from mmjax.data import loader, pipeline
from mmjax.data.tokenizer import TextTokenizer
from mmjax.data.transforms import image

SIZE, TOKENS, BATCH, PARALLEL = 224, 64, 64, 2
DISCARDED = 8  # Batches at the start of a sample, which may be made before.
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
# Of ImageNet, as torchvision has them.
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
# What a candidate needs besides mmjax, and how to get it.
PACKAGES = {
  "torch": "torch",
  "tensorflow": "tensorflow-cpu",
  "simplejpeg": "simplejpeg",
  "cv2": "opencv-python-headless",
}


def _library(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError as e:
    raise NotInstalled(f"not installed: pip install {PACKAGES[name]}") from e


def _ours(
  folder: Path,
  *,
  form: str = "prepared",
  workers: int = 0,
  antialias: bool = True,
) -> Iterator[Any]:
  if not antialias:
    _library("cv2")
  made = pipeline.build_pipeline(
    dict(
      source="prepared",
      path=str(folder / form),
      image=dict(
        size=SIZE, crop_scale=SCALE, crop_ratio=RATIO, antialias=antialias
      ),
      text=dict(field="text", max_tokens=TOKENS),
      workers=workers,
      cache_mib=0,
    )
  )
  return loader.train_batches(
    made, batch_size=BATCH, seed=0, num_threads=PARALLEL
  )


class _Files:
  """Files and captions as a peer's data set reads them."""

  def __init__(self, folder: Path):
    self.files = sorted((folder / "jpeg").glob("*.jpg"))
    captions = (folder / pictures.CAPTIONS).read_text("utf-8")
    self.captions = json.loads(captions)
    self.tokenizer = TextTokenizer.load("starter")

  def __len__(self) -> int:
    return len(self.files)

  def tokens(self, i: int) -> np.ndarray:
    return self.tokenizer.encode(self.captions[i], TOKENS)


def _box(rng: np.random.Generator, width: int, height: int):
  return image.draw_box(rng, width, height, SCALE, RATIO)


class _PillowFiles(_Files):
  def __init__(self, folder: Path, *, floats: bool):
    super().__init__(folder)
    self.floats = floats
    self.rng = np.random.default_rng(0)

  def __getitem__(self, i: int):
    from PIL import Image

    with Image.open(io.BytesIO(self.files[i].read_bytes())) as opened:
      whole = opened.convert("RGB")
    part = whole.resize(
      (SIZE, SIZE),
      Image.Resampling.BILINEAR,
      box=_box(self.rng, *whole.size),
    )
    pixels = np.array(part)
    if self.floats:
      pixels = (pixels.astype(np.float32) / 255 - MEAN) / STD
    return pixels.transpose(2, 0, 1), self.tokens(i)


def _torch(folder: Path, *, floats: bool) -> Iterator[Any]:
  data = _library("torch.utils.data")
  files = _PillowFiles(folder, floats=floats)
  while True:  # Its workers end with each epoch unless they are persistent.
    batches = data.DataLoader(
      files,
      batch_size=BATCH,
      sampler=data.RandomSampler(files, replacement=True, num_samples=10**9),
      num_workers=PARALLEL,
      drop_last=True,
    )
    yield from batches


def _tf_data(folder: Path, *, floats: bool) -> Iterator[Any]:
  tf = _library("tensorflow")
  files = _Files(folder)
  # Its tokenizers are another package: it gets the tokens ready.
  tokens = np.stack([files.tokens(i) for i in range(len(files))])

  def load(name, ids):
    encoded = tf.io.read_file(name)
    shape = tf.io.extract_jpeg_shape(encoded)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
      shape,
      tf.zeros((1, 0, 4)),
      min_object_covered=0.0,
      area_range=SCALE,
      aspect_ratio_range=RATIO,
      use_image_if_no_bounding_boxes=True,
    )
    y, x, _ = tf.unstack(begin)
    h, w, _ = tf.unstack(size)
    part = tf.image.decode_and_crop_jpeg(
      encoded, tf.stack([y, x, h, w]), channels=3
    )
    pixels = tf.image.resize(part, (SIZE, SIZE))
    if floats:
      pixels = (pixels / 255 - MEAN) / STD
    else:
      pixels = tf.cast(pixels, tf.uint8)
    return pixels, ids

  made = tf.data.Dataset.from_tensor_slices(
    ([str(f) for f in files.files], tokens)
  )
  made = made.shuffle(len(files)).repeat().map(load, PARALLEL)
  made = made.batch(BATCH, drop_remainder=True).prefetch(2)
  options = tf.data.Options()
  options.threading.private_threadpool_size = PARALLEL
  return made.with_options(options).as_numpy_iterator()


def _pool(folder: Path) -> Iterator[Any]:
  simplejpeg, cv2 = _library("simplejpeg"), _library("cv2")
  cv2.setNumThreads(1)
  files = _Files(folder)

  def load(i: int):
    whole = simplejpeg.decode_jpeg(files.files[i].read_bytes())
    rng = np.random.default_rng(i)
    box = _box(rng, whole.shape[1], whole.shape[0])
    left, top, right, bottom = map(round, box)
    return cv2.resize(
      whole[top:bottom, left:right], (SIZE, SIZE)
    ), files.tokens(i)

  def batch(_):
    chosen = random.choices(range(len(files)), k=BATCH)
    pixels, ids = zip(*map(load, chosen), strict=True)
    return np.stack(pixels), np.stack(ids)

  with futures.ThreadPoolExecutor(PARALLEL) as pool:
    waiting = [pool.submit(batch, i) for i in range(2 * PARALLEL)]
    for i in itertools.count():
      yield waiting.pop(0).result()
      waiting.append(pool.submit(batch, i))


CANDIDATES: dict[str, Callable[[Path], Iterator[Any]]] = {
  "mmjax threads": _ours,
  "mmjax workers": partial(_ours, workers=PARALLEL),
  "mmjax threads, antialias=False": partial(_ours, antialias=False),
  "mmjax workers, antialias=False": partial(
    _ours, antialias=False, workers=PARALLEL
  ),
  "mmjax threads, copies of 291 px": partial(_ours, form="copies"),
  "torch DataLoader, Pillow, float32": partial(_torch, floats=True),
  "torch DataLoader, Pillow, uint8": partial(_torch, floats=False),
  "tf.data, float32": partial(_tf_data, floats=True),
  "tf.data, uint8": partial(_tf_data, floats=False),
  "thread pool, simplejpeg, OpenCV": _pool,
}
BASELINE = "torch DataLoader, Pillow, float32"


class Batches:
  """A candidate that has made its first batches, see `rounds.Sampler`."""

  def __init__(self, name: str, folder: Path):
    self.facts: dict[str, Any] = {}
    self._batches = iter(CANDIDATES[name](folder))
    self._discard()

  def sample(self, secs: float) -> float:
    """Examples a second."""
    self._discard()
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < secs:
      next(self._batches)
      count += BATCH
    return count / spent

  def close(self) -> None:
    """Ends its workers."""
    close = getattr(self._batches, "close", None)
    if close is not None:
      close()

  def _discard(self) -> None:
    for _ in range(DISCARDED):
      next(self._batches)
