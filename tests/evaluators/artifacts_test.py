import base64
import io
import json

import numpy as np
from PIL import Image

from mmjax.core.interfaces import Artifact
from mmjax.evaluators import artifacts


def decoded(value):
  with Image.open(io.BytesIO(base64.b64decode(value["png"]))) as image:
    assert image.format == "PNG"
    return np.asarray(image)


def test_pictures_come_back_pixel_by_pixel(tmp_path, rng):
  images = rng.integers(0, 256, (2, 3, 5, 4, 3), dtype=np.uint8)
  artifact = Artifact("x", "pairs", "Title", {"images": images}, "Caption.")
  path = artifacts.write(artifact, tmp_path, "split")
  assert path == tmp_path / "split.x.json"
  content = json.loads(path.read_text())
  for row in range(2):
    for column in range(3):
      got = decoded(content["data"]["images"][row][column])
      np.testing.assert_array_equal(got, images[row, column])
  assert (content["evaluator"], content["title"]) == ("split", "Title")


def test_numbers_and_texts_are_plain_json():
  data = {
    "values": np.array([[1, 2]]),
    "rows": [{"score": np.float32(0.5), "right": np.bool_(True)}, ("a", None)],
  }
  assert artifacts.encode(data) == {
    "values": [[1, 2]],
    "rows": [{"score": 0.5, "right": True}, ["a", None]],
  }


def test_nothing_half_written_is_left(tmp_path):
  artifacts.write(Artifact("x", "bars", "T", {}), tmp_path, "e")
  assert [p.name for p in tmp_path.iterdir()] == ["e.x.json"]
