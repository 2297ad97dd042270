"""What people's files are like: each fault is counted and named."""

import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from mmjax.core import errors
from mmjax.data import loader, pipeline

NUM_GOOD = 20


def encoded(pixels, form="PNG", **options):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, form, **options)
  return file.getvalue()


def bomb():
  """A PNG that says of itself that it has 100 megapixels."""
  head = bytearray(encoded(np.zeros((4, 4, 3), np.uint8)))
  head[16:24] = (10_000).to_bytes(4, "big") * 2
  head[29:33] = zlib.crc32(head[12:29]).to_bytes(4, "big")
  return bytes(head)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A table with good rows, odd ones that are fine, and one of each fault."""
  root = tmp_path_factory.mktemp("faults")
  noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  jpeg = encoded(noise, "JPEG")
  deep = np.full((8, 8), 40_000, np.uint16)
  pictures = {
    "deep.png": encoded(deep),
    "truncated.jpg": jpeg[: len(jpeg) // 2],
    "empty.jpg": b"",
    "page.jpg": b"<!DOCTYPE html><html>Not found</html>",
    "bomb.png": bomb(),
  }
  pictures |= {f"good{i}.png": encoded(noise) for i in range(NUM_GOOD)}
  for name, content in pictures.items():
    (root / name).write_bytes(content)
  rows = [
    json.dumps({"image": name, "text": name}).encode()
    for name in (*pictures, "missing.png")
  ]
  rows.append(b'{"image": "good0.png", "text": "caf\xe9"}')  # Latin-1.
  long = {"image": "good1.png", "text": "word " * (2 << 20)}  # 10 MB.
  rows.append(json.dumps(long).encode())
  (root / "train.jsonl").write_bytes(b"\n".join(rows))
  return root


def build(folder, fraction):
  return pipeline.build_pipeline(
    dict(
      source="files",
      path=str(folder),
      image=dict(size=16, crop_scale=(1.0, 1.0)),
      text=dict(max_tokens=8, field="text"),
      max_bad_fraction=fraction,
    )
  )


BROKEN = {"truncated.jpg", "empty.jpg", "page.jpg", "bomb.png", "missing.png"}


def test_training_goes_on_and_each_fault_is_counted_and_named(folder):
  made = build(folder, 1.0)
  assert len(made) == NUM_GOOD + 8
  batches = loader.train_batches(made, batch_size=7, seed=0, num_threads=0)
  for _ in range(4):  # An epoch.
    assert next(batches)["image"].shape == (7, 16, 16, 3)
  assert len(made.bad) == len(BROKEN) + 1  # And the line that is not UTF-8.
  said = made.bad.describe()
  for word in ("No file at", "line 27", "max_pixels", "truncated"):
    assert word in said
  assert sum(made.bad.reasons.values()) == 6 and len(made.bad.reasons) >= 4


def test_sixteen_bits_become_eight(folder):
  made = build(folder, 1.0)
  image = made.example(0, 0, 0, False)["image"]
  np.testing.assert_array_equal(image, 40_000 >> 8)


def test_more_than_is_allowed_stops_with_the_list(folder):
  made = build(folder, 0.05)  # One of 28.
  batches = loader.train_batches(made, batch_size=7, seed=0, num_threads=0)
  with pytest.raises(errors.UserError, match="max_bad_fraction") as e:
    for _ in range(4):
      next(batches)
  assert "of them" in str(e.value) and "train[" in str(e.value)
