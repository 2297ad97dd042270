import numpy as np
import pytest

from mmjax.core import errors
from mmjax.data import synthetic
from mmjax.data.transforms import image


def test_example_is_a_function_of_its_index():
  first = synthetic.SyntheticSource(split="train")
  again = synthetic.SyntheticSource(split="train")
  test = synthetic.SyntheticSource(split="test")
  assert first[5] == again[5]
  assert first[5] != first[6]
  assert first[5]["image"] != test[5]["image"]


def test_caption_says_what_the_picture_shows():
  source = synthetic.SyntheticSource(split="train")
  for i in range(20):
    example = source[i]
    pixels = image.decode(example["image"]).astype(int)
    drawn = np.argwhere((pixels != 255).any(axis=2))
    color = np.median(pixels[tuple(drawn.T)], axis=0)
    assert tuple(color) == synthetic.COLORS[example["subgroup"]]
    y, x = drawn.mean(axis=0)
    place = f"{'bottom' if y > 32 else 'top'} {'right' if x > 32 else 'left'}"
    assert example["tags_en"].endswith(f"|{place}")
    assert example["label_en"] == f"{example['subgroup']} {example['group']}"


def test_out_of_range_is_an_index_error():
  with pytest.raises(IndexError):
    synthetic.SyntheticSource(split="test")[128]


def test_path_is_refused():
  with pytest.raises(errors.UserError, match="reads no files"):
    synthetic.SyntheticSource(split="train", path="somewhere")
